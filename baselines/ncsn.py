"""NCSN: a network that estimates the gradient of log p at ten levels of noise, sampled by annealed Langevin dynamics.

s(x, i) estimates the score of the data with noise N(0, sigma_i^2) added, d log p_{sigma_i}(x) / d x, for images x in [0, 1]. There is
no density: the model neither knows log p nor has to be the gradient of anything.

Reference: Song and Ermon, "Generative Modeling by Estimating Gradients of the Data Distribution", NeurIPS 2019,
https://arxiv.org/abs/1907.05600
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from baselines.backbones.refinenet import RefineNet
from baselines.system import Samples
from vaebm.errors import UserError
from vaebm.noise import ahead, normal, uniform
from vaebm.training.batches import to_uint8


@dataclass(frozen=True)
class NCSNArchitecture:
    """``image_shape``: (H, W, C), H and W even; ``width``: channels at full resolution; ``levels`` of noise."""

    image_shape: tuple[int, int, int] = (32, 32, 3)
    width: int = 128
    levels: int = 10

    def __post_init__(self) -> None:
        if self.image_shape[0] % 2 or self.image_shape[1] % 2 or self.width < 2 or self.levels < 1:
            raise UserError(
                f"architecture {asdict(self)}: needs image_shape with even H and W, width at least 2, levels at least 1"
            )


class NCSN(RefineNet):
    """The score s: images (N, C, H, W) in [0, 1] and noise level indices (N,) -> (N, C, H, W)."""

    def __init__(self, architecture: NCSNArchitecture) -> None:
        super().__init__(architecture.image_shape[2], architecture.width, architecture.levels)
        self.architecture = architecture
        self.to(memory_format=torch.channels_last)


def geometric(first: float, last: float, levels: int) -> Tensor:
    """Return levels (L,) from ``first`` to ``last``, float64, each the same multiple of the one before."""
    return torch.from_numpy(np.geomspace(first, last, levels))


def annealed_langevin(
    score: Callable[[Tensor, int], Tensor],
    x: Tensor,
    noise: Callable[[int, int], Tensor],
    sigmas: Sequence[float],
    *,
    step_lr: float,
    steps_per_level: int,
    denoise: bool,
    most: int | None = None,
) -> Tensor:
    """Run x <- x + a_i s(x, i) + sqrt(2 a_i) n, a_i = step_lr (sigma_i / sigma_L)^2, some steps at each level i = 0, ..., L - 1.

    Args:
        score: (x, i) -> s(x, i), of x's shape.
        x: where the chains start, (N, ...).
        noise: (i, k) -> standard normal noise of x's shape for step k at level i.
        sigmas: sigma_0 > ... > sigma_{L-1}.
        denoise: end with x <- x + sigma_L^2 s(x, L - 1), the mean of the clean image given the noisy one (Tweedie); Jolicoeur-Martineau
            et al., "Adversarial score matching and improved sampling for image generation", https://arxiv.org/abs/2009.05475.
        most: stop after so many steps, the denoising one counted as the last.

    Returns:
        Where the chains end, (N, ...).
    """
    steps = [(i, k) for i in range(len(sigmas)) for k in range(steps_per_level)]
    for i, k in steps[:most]:
        a = step_lr * (sigmas[i] / sigmas[-1]) ** 2
        x = x + a * score(x, i) + (2 * a) ** 0.5 * noise(i, k)
    if denoise and (most is None or most > len(steps)):
        x = x + sigmas[-1] ** 2 * score(x, len(sigmas) - 1)
    return x


@dataclass(frozen=True)
class AnnealedLangevin:
    """How a chain moves; see :func:`annealed_langevin`."""

    step_lr: float = 2e-5
    steps_per_level: int = 100
    denoise: bool = False

    def __post_init__(self) -> None:
        if self.step_lr <= 0 or self.steps_per_level < 1:
            raise UserError(
                f"sampling: step_lr {self.step_lr}, steps_per_level {self.steps_per_level}; "
                "needed step_lr above 0 and at least 1 step per level"
            )


@dataclass(frozen=True)
class NCSNSampling(AnnealedLangevin):
    """The weights do not say which noise their levels are for: ``sigma_begin`` falls geometrically to ``sigma_end``."""

    sigma_begin: float = 1.0
    sigma_end: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sigma_end <= self.sigma_begin:
            found = f"sigma_begin {self.sigma_begin}, sigma_end {self.sigma_end}"
            raise UserError(f"sampling: {found}; needed 0 < sigma_end <= sigma_begin")


class NCSNSystem(Samples):
    """NCSN as a system under test: samples by annealed Langevin dynamics from uniform noise.

    It has no ``score``, since it has no density; :meth:`score_gradient_norm` is the heuristic that remains.
    """

    kind = "ncsn"
    Architecture: ClassVar[type] = NCSNArchitecture
    Network: ClassVar[type[nn.Module]] = NCSN
    Recipe: ClassVar[type] = NCSNSampling

    @property
    def sigmas(self) -> list[float]:
        """The noise levels, descending."""
        return geometric(self.settings.sigma_begin, self.settings.sigma_end, self.network.architecture.levels).tolist()

    def describe_score(self) -> dict[str, Any]:
        """Say what :meth:`score_gradient_norm` is the norm of: no density's gradient, strictly, but the model's estimate of one."""
        return {
            "score": "no density: its gradient alone, s(x, sigma_min)",
            "estimator": "the network at its lowest noise level, x = bytes / 255 without noise",
        }

    @property
    def total_steps(self) -> int:
        """Evaluations of the network behind an image: those of all levels, and the denoising one."""
        return len(self.sigmas) * self.settings.steps_per_level + self.settings.denoise

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        """Run one chain per seed; return uint8 (n, H, W, C)."""
        return self._draw(seeds)

    @torch.no_grad()
    def sample_part(self, seeds: Sequence[int], steps: int) -> np.ndarray:
        """Return the chains after the first ``steps`` of their :attr:`total_steps`, uint8 (N, H, W, C): to time them, not to look at."""
        draw = lambda filled: self._draw(filled, most=steps)
        return self.in_blocks(draw, seeds)

    @torch.no_grad()
    def sample_steps(self, seeds: Sequence[int], ladder: Sequence[int]) -> dict[int, np.ndarray]:
        """Return, for every number of steps on the ladder, the images of a chain of so many, spread evenly over the levels (N, H, W, C).

        As in :attr:`total_steps` the denoising step counts.

        Raises:
            UserError: the steps do not spread evenly.
        """
        levels, last = len(self.sigmas), int(self.settings.denoise)
        for steps in ladder:
            if steps < last or (steps - last) % levels:
                beside = " and 1 that denoises" if last else ""
                raise UserError(
                    f"{self.kind}: a chain of {steps} steps, needed a multiple of its {levels} noise levels{beside}"
                )
        draw = lambda steps: lambda filled: self._draw(filled, steps_per_level=(steps - last) // levels)
        return {steps: self.in_blocks(draw(steps), seeds) for steps in sorted(set(ladder))}

    def nearest_steps(self, steps: float) -> int:
        """Return the number of steps nearest to ``steps`` that :meth:`sample_steps` takes, with at least one at each level."""
        levels, last = len(self.sigmas), int(self.settings.denoise)
        return levels * max(1, round((steps - last) / levels)) + last

    def _draw(self, seeds: Sequence[int], **changed: Any) -> np.ndarray:
        height, width, channels = self.image_shape
        shape = (channels, height, width)
        x = uniform(self.seed, seeds, "x_0", shape, self.device)
        recipe = {name: self.recipe[name] for name in ("step_lr", "steps_per_level", "denoise")} | changed
        each = recipe["steps_per_level"]
        draw = lambda n: normal(self.seed, seeds, f"langevin.{n // each}.{n % each}", shape, self.device)
        with ahead(draw, each * len(self.sigmas)) as noise:
            x = annealed_langevin(self._score, x, lambda i, k: noise(i * each + k), self.sigmas, **recipe)
        return to_uint8(x)

    @torch.no_grad()
    def score_gradient_norm(self, images: np.ndarray) -> np.ndarray:
        """Return ||s(x, sigma_min)||, float64 (N,), of uint8 images (N, H, W, C), x = bytes / 255: the Euclidean norm of the model's
        estimate of d log p / d x at the lowest noise level; lower is more in-distribution."""

        def norms(part: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(part.transpose(0, 3, 1, 2).copy()).to(self.device).float() / 255
            score = self._score(x, self.network.architecture.levels - 1)
            return score.double().flatten(1).norm(dim=1).cpu().numpy()

        return np.concatenate([np.empty(0), *self.in_batches(norms, images)])

    def _score(self, x: Tensor, level: int) -> Tensor:
        return self.network(x, torch.full((len(x),), level, device=x.device))
