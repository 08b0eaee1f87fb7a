"""BatchNorm statistics re-adjusted to a low temperature.

An NVAE's running statistics are those of training, where latents come from the posterior. Samples of a prior whose sigma is multiplied by
t < 1 have other activations: their statistics are gathered anew from samples at that temperature.

Reference: Vahdat & Kautz, "NVAE: A Deep Hierarchical Variational Autoencoder", NeurIPS 2020, section 4 (500 iterations).
"""

import torch
from torch import nn

from vaebm.errors import UserError
from vaebm.noise import normal
from vaebm.nvae.model import NVAE


@torch.no_grad()
def readjust_batch_norm(
    nvae: NVAE, temperature: float, iterations: int = 500, batch_size: int = 16, seed: int = 0
) -> None:
    """Replace, in place, the running statistics of every BatchNorm of the decoder by those of samples at ``temperature``.

    Each iteration decodes a batch of prior samples as in training, every BatchNorm normalising by the batch, and moves the running
    statistics by their momentum m = 0.05; what was there before counts (1 - m)^iterations in the end. The encoder's BatchNorms and all
    weights stay as they are. The model is left in eval mode, or with its old statistics when an error is raised.

    Do this to a copy that only samples: the posterior runs through the same decoder, so ELBO and scores change with it.

    Args:
        nvae: the model, before its BatchNorms are folded into convolutions.
        temperature: t in (0, 1].
        iterations: batches, at least 1.
        batch_size: samples per batch, at least 2.
        seed: of the samples: number i of iteration k has the key k * batch_size + i.

    Raises:
        UserError: an argument is out of range, the decoder has no BatchNorm, or its statistics or parameters did not stay finite.
    """
    if not 0 < temperature <= 1:
        raise UserError(f"re-adjusting BatchNorm at temperature {temperature}: needed one above 0 and at most 1")
    for name, value, least in (("iterations", iterations, 1), ("batch_size", batch_size, 2)):
        if value < least:
            raise UserError(f"re-adjusting BatchNorm with {name} {value}: needed at least {least}")
    layers = decoder_batch_norms(nvae)
    if not layers:
        raise UserError(
            f"re-adjusting BatchNorm: the decoder has none (cells {nvae.config.cells!r}, or folded already)"
        )
    before = [{name: value.clone() for name, value in layer.named_buffers()} for layer in layers]
    device = next(nvae.parameters()).device

    def draw(iteration: int) -> list[torch.Tensor]:
        keys = range(iteration * batch_size, (iteration + 1) * batch_size)
        return [
            normal(seed, keys, f"readjust.{group}", shape, device) for group, shape in enumerate(nvae.latent_shapes)
        ]

    nvae.eval()
    try:
        for layer in layers:
            layer.train()
        for iteration in range(iterations):
            nvae.decode(draw(iteration), temperature)
        nvae.eval()
        statistics = [value for layer in layers for value in (layer.running_mean, layer.running_var)]
        outcome = nvae.decode(draw(iterations), temperature).params
        if not all(bool(value.isfinite().all()) for value in (*statistics, outcome) if value is not None):
            raise UserError(
                f"re-adjusting BatchNorm at temperature {temperature}: statistics or samples are not finite; the model itself "
                "overflows there: use a temperature nearer to 1, or do without re-adjusting"
            )
    except BaseException:
        for layer, old in zip(layers, before, strict=True):
            for name, buffer in layer.named_buffers():
                buffer.copy_(old[name])
        raise
    finally:
        nvae.eval()


def decoder_batch_norms(nvae: NVAE) -> list[nn.BatchNorm2d]:
    """Return the BatchNorms that decoding runs through, in order."""
    parts = (nvae.dec_tower, nvae.dec_sampler, nvae.post_process, nvae.image_conditional)
    return [module for part in parts for module in part.modules() if isinstance(module, nn.BatchNorm2d)]
