"""Langevin dynamics over (eps_x, eps_z): pure functions of a potential and of the noise they are given.

eps <- eps - (eta / 2) grad U(eps) + sqrt(eta) w,   w ~ N(0, I)                                   (paper, eq. 2)

Two potentials exist. With x = T_x(eps_x, z), z = T_z(eps_z):

* ``paper``:    U = E(x) + ||eps||^2 / 2                     the density the paper states, e^{-E} N(eps; 0, I)
* ``official``: U = E(x) - log p(z) - log p(x | z)           what the released code differentiates; it leaves out the Jacobian of T and so
  targets e^{-E} N(eps; 0, I) / prod sigma: even with E = 0 it drifts towards latents of small sigma.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

TARGETS = ("paper", "official")

Potential = Callable[[Sequence[Tensor]], Tensor]
Noise = Callable[[int], Sequence[Tensor]]


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
        state = [part.detach().requires_grad_() for part in state]  # detached: the caller keeps what was yielded
        with torch.enable_grad():
            gradients = torch.autograd.grad(potential(state).sum(), state)
        state = [
            part.detach() - step_size / 2 * gradient + step_size**0.5 * w
            for part, gradient, w in zip(state, gradients, noise(k), strict=True)
        ]
        yield state


def langevin(
    potential: Potential, start: Sequence[Tensor], *, steps: int, step_size: float, noise: Noise
) -> list[Tensor]:
    """Return the state after ``steps`` updates (see :func:`langevin_chain`); ``start`` itself when ``steps`` is 0."""
    last = [part.detach() for part in start]
    for state in langevin_chain(potential, start, steps=steps, step_size=step_size, noise=noise):
        last = state
    return last


def standard_normal_potential(eps: Sequence[Tensor]) -> Tensor:
    """Return ||eps||^2 / 2 per chain, (N,): minus log N(eps; 0, I) up to a constant."""
    return sum((part.square().flatten(1).sum(1) / 2 for part in eps), start=eps[0].new_zeros(len(eps[0])))
