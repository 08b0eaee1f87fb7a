"""Likelihood regret: how far the ELBO of one image rises when the posterior is fitted to that image alone.

LR(x) = max over q of ELBO(x; q) - ELBO(x; q_encoder), where q moves and the decoder stays. Here q is the encoder's hierarchical posterior
with a shift added to the raw mean and log sigma of every latent variable.

Reference: Xiao, Yan and Amit, Likelihood Regret: An Out-of-Distribution Detection Score for Variational Auto-encoder (NeurIPS 2020),
arXiv 2003.02977. There q moves through the weights of the encoder or, as here, through its outputs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from vaebm.errors import UserError
from vaebm.nvae.likelihood import as_modelled, posterior_noise
from vaebm.nvae.model import NVAE
from vaebm.training.batches import from_uint8

LEARNING_RATE = 0.1
EPSILON = 1e-3  # of Adam: coordinates whose gradient is rounding alone stay where they are, whatever the batch


def likelihood_regret(
    nvae: NVAE, images: np.ndarray, steps: int, seed: int = 0, learning_rate: float = LEARNING_RATE
) -> np.ndarray:
    """Return the rise of every image's ELBO, float64 (N,), in nats, at least 0.

    The ELBO is that of one posterior sample whose noise is keyed by the bytes of the image and stays the same in all steps; KL terms
    are in closed form without flows. Adam takes ``steps`` steps from no shift; the best ELBO on the way counts, the start included.
    Losses of a batch are added and Adam is elementwise, so an image's path does not depend on the others.

    Args:
        nvae: in eval mode, its weights without gradients.
        images: uint8 (N, S, S, C).
        steps: at least 1.

    Raises:
        UserError: steps below 1.
    """
    if steps < 1:
        raise UserError(f"steps of likelihood regret {steps}: needed at least 1")
    part = as_modelled(nvae, images, seed)
    x = nvae.quantise(from_uint8(part, next(nvae.parameters()).device).contiguous(memory_format=torch.channels_last))
    eps = next(posterior_noise(nvae, part, 1, seed))
    shifts = [torch.zeros(len(x), 2 * c, h, w, device=x.device, requires_grad=True) for c, h, w in nvae.latent_shapes]
    adam = torch.optim.Adam(shifts, learning_rate, eps=EPSILON)
    with torch.no_grad():
        encoded = nvae._encode_features(x)  # the bottom-up pass is the same in every step
    with torch.enable_grad(), shifted_posteriors(nvae, shifts):
        start = best = None
        for step in range(steps + 1):
            out = nvae._draw_posterior(encoded, eps)
            elbo = out.distribution.log_prob(x).double() - out.kl_per_group.double().sum(1)
            if start is None or best is None:
                start = best = elbo.detach()
            best = torch.fmax(best, elbo.detach())  # a path that diverges to NaN keeps what it had
            if step < steps:
                adam.zero_grad()
                (-elbo.sum()).backward()
                adam.step()
    assert start is not None
    assert best is not None
    return (best - start).cpu().numpy()


@contextmanager
def shifted_posteriors(nvae: NVAE, shifts: Sequence[Tensor]) -> Iterator[None]:
    """Add to the raw (mean, log sigma) of every group's posterior, coarsest first, each (N, 2C, H, W)."""
    hooks = [
        layer.register_forward_hook(lambda _layer, _input, raw, shift=shift: raw + shift)
        for layer, shift in zip(nvae.enc_sampler, shifts, strict=True)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
