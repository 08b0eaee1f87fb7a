"""Langevin dynamics over (eps_x, eps_z): pure functions of a potential and of the noise they are given.

eps <- eps - (eta / 2) grad U(eps) + sqrt(eta) w,   w ~ N(0, I)                                   (paper, eq. 2)

Two potentials exist. With x = T_x(eps_x, z), z = T_z(eps_z):

* ``paper``:    U = E(x) + ||eps||^2 / 2                     the density the paper states, e^{-E} N(eps; 0, I)
* ``official``: U = E(x) - log p(z) - log p(x | z)           what the released code differentiates; it leaves out the Jacobian of T and so
  targets e^{-E} N(eps; 0, I) / prod sigma: even with E = 0 it drifts towards latents of small sigma.

x is clamped to [0, 1], so a saturated pixel pulls at neither eps. Two chains exist: the unadjusted one above, which every published number
comes from and whose stationary law is e^{-U} only as eta -> 0, and the Metropolis-adjusted one (MALA), whose law is e^{-U} at any eta.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from vaebm.errors import UserError
from vaebm.nvae import NVAE, Decoded, GaussianDecoder

TARGETS = ("paper", "official")
OFFICIAL_LOG_SIGMA_MIN = -2.0  # the released chain differentiates a decoder whose log sigma is clamped here

Potential = Callable[[Sequence[Tensor]], Tensor]
Noise = Callable[[int], Sequence[Tensor]]
Uniform = Callable[[int], Tensor]


def run(
    nvae: NVAE,
    energy: nn.Module,
    eps_z: Sequence[Tensor],
    eps_x: Tensor,
    steps: int,
    step_size: float,
    target: str = "paper",
    noise: Sequence[tuple[Sequence[Tensor], Tensor]] | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Run unadjusted Langevin dynamics and return the last (eps_z, eps_x).

    Gradients are taken with respect to eps alone; neither the weights nor the tensors given are changed.

    Args:
        nvae: in eval mode, with a Gaussian decoder.
        energy: images (N, C, H, W) in [0, 1] -> (N,).
        eps_z: one tensor per latent group, (N, *latent_shapes[l]).
        eps_x: (N, C, H, W).
        steps: number of updates.
        step_size: eta.
        target: ``"paper"`` or ``"official"``.
        noise: recorded noise to replay, per step (one w per latent group, w of eps_x); ``None`` draws from torch's generator.

    Raises:
        ValueError: an unknown target, or fewer steps of recorded noise than ``steps``.
        UserError: the decoder is not Gaussian.
    """
    if noise is not None and len(noise) < steps:
        raise ValueError(f"noise holds {len(noise)} steps, needed {steps}")
    start = [eps_x, *eps_z]

    def draws(k: int) -> list[Tensor]:
        if noise is None:
            return [torch.randn_like(part) for part in start]
        noise_z, noise_x = noise[k]
        return [noise_x, *noise_z]

    eps_x, *moved = langevin(potential(nvae, energy, target), start, steps=steps, step_size=step_size, noise=draws)
    return moved, eps_x


# Potentials


def decode(nvae: NVAE, eps: Sequence[Tensor], temperature: float = 1.0) -> tuple[Tensor, Decoded]:
    """Map a state [eps_x, eps_z_1, ..., eps_z_L] to x in [0, 1] (N, C, H, W) and what the NVAE made of eps_z."""
    decoded = nvae.decode(eps[1:], temperature)
    return decoded.distribution.sample(eps[0]), decoded


def potential(nvae: NVAE, energy: nn.Module, target: str = "paper", temperature: float = 1.0) -> Potential:
    """Return U of a target (see the module), a function of a state [eps_x, eps_z_1, ..., eps_z_L] with values (N,).

    Args:
        temperature: scales the prior's sigma in T_z; ``official`` scores z under the prior so scaled.

    Raises:
        ValueError: an unknown target.
        UserError: the decoder is not Gaussian: only T_x of a Gaussian is differentiable in eps_x.
    """
    if target not in TARGETS:
        raise ValueError(f"unknown Langevin target {target!r}: needed one of {', '.join(TARGETS)}")
    if nvae.config.likelihood != "gaussian":
        raise UserError(
            f"Langevin dynamics over eps_x needs a Gaussian decoder, found {nvae.config.likelihood!r}: such a model can only "
            "be sampled as it is (0 steps)"
        )

    def paper(eps: Sequence[Tensor]) -> Tensor:
        x, _ = decode(nvae, eps, temperature)
        return energy(x).float() + standard_normal_potential(eps)

    def official(eps: Sequence[Tensor]) -> Tensor:
        x, decoded = decode(nvae, eps, temperature)
        scored = GaussianDecoder.from_params(decoded.params, OFFICIAL_LOG_SIGMA_MIN, nvae.config.border)
        return energy(x).float() - decoded.log_pz - scored.log_prob(x)

    return {"paper": paper, "official": official}[target]


def standard_normal_potential(eps: Sequence[Tensor]) -> Tensor:
    """Return ||eps||^2 / 2 per chain, (N,): minus log N(eps; 0, I) up to a constant."""
    return sum((part.square().flatten(1).sum(1) / 2 for part in eps), start=eps[0].new_zeros(len(eps[0])))


# Chains of any potential


def value_and_gradient(potential: Potential, state: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return U (N,) and dU / d state. Weights get no gradient, whether they ask for one or not."""
    inputs = [part.detach().requires_grad_() for part in state]
    with torch.enable_grad():
        value = potential(inputs)
        gradient = torch.autograd.grad(value.sum(), inputs)
    return value.detach(), gradient


def _step(
    state: Sequence[Tensor], gradient: Sequence[Tensor], step_size: float, noise: Sequence[Tensor]
) -> list[Tensor]:
    return [
        part - step_size / 2 * slope + step_size**0.5 * w for part, slope, w in zip(state, gradient, noise, strict=True)
    ]


def langevin_chain(
    potential: Potential, start: Sequence[Tensor], *, steps: int, step_size: float, noise: Noise
) -> Iterator[list[Tensor]]:
    """Yield the state after every step of unadjusted Langevin dynamics.

    Args:
        potential: U, maps a state to one value per chain, (N,).
        start: tensors (N, ...); not modified.
        steps: number of updates.
        step_size: eta > 0.
        noise: ``noise(k)`` gives the standard normal draws of step ``k`` (from 0), shaped like the state.
    """
    state = [part.detach() for part in start]
    for k in range(steps):
        _, gradient = value_and_gradient(potential, state)
        state = _step(state, gradient, step_size, noise(k))
        yield state


def langevin(
    potential: Potential, start: Sequence[Tensor], *, steps: int, step_size: float, noise: Noise
) -> list[Tensor]:
    """Return the state after ``steps`` updates (see :func:`langevin_chain`); ``start`` itself when ``steps`` is 0."""
    last = [part.detach() for part in start]
    for state in langevin_chain(potential, start, steps=steps, step_size=step_size, noise=noise):
        last = state
    return last


def metropolis_chain(
    potential: Potential, start: Sequence[Tensor], *, steps: int, step_size: float, noise: Noise, uniform: Uniform
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Yield (state, accepted) after every step of Metropolis-adjusted Langevin dynamics (MALA).

    The Langevin step is a proposal eps' ~ q(. | eps), which each chain takes with probability
    min(1, e^{U(eps) - U(eps')} q(eps | eps') / q(eps' | eps)), and otherwise stays. With q Gaussian and g, g' the gradients at eps, eps',
    the logarithm of that ratio is U - U' + sqrt(eta) / 2 <w, g + g'> - eta / 8 ||g + g'||^2: no large terms to cancel.

    Args:
        uniform: ``uniform(k)`` gives one draw from [0, 1) per chain, (N,). The other arguments are those of :func:`langevin_chain`.

    Yields:
        The state, and which chains moved, bool (N,). A proposal whose potential is not finite is refused.

    Reference: Roberts & Tweedie, "Exponential convergence of Langevin distributions and their discrete approximations", Bernoulli 1996.
    """
    state = [part.detach() for part in start]
    if steps > 0:
        value, gradient = value_and_gradient(potential, state)
    for k in range(steps):
        w = noise(k)
        proposal = _step(state, gradient, step_size, w)
        new_value, new_gradient = value_and_gradient(potential, proposal)
        log_ratio = (value - new_value).double()
        for draw, before, after in zip(w, gradient, new_gradient, strict=True):
            slope = (before + after).flatten(1).double()
            log_ratio += step_size**0.5 / 2 * (draw.flatten(1) * slope).sum(1) - step_size / 8 * slope.square().sum(1)
        accepted = uniform(k).double().log() < log_ratio
        choose = lambda new, old, accepted=accepted: torch.where(accepted.view(-1, *[1] * (new.dim() - 1)), new, old)
        state = [choose(new, old) for new, old in zip(proposal, state, strict=True)]
        gradient = tuple(choose(new, old) for new, old in zip(new_gradient, gradient, strict=True))
        value = choose(new_value, value)
        yield state, accepted
