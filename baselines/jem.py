"""JEM: a classifier read as an energy of images.

The logits f(x)[y] of a classifier define p(x, y) proportional to exp(f(x)[y]). Hence p(y|x) is the usual softmax, and

    p(x) = exp(-E(x)) / Z,    E(x) = -logsumexp_y f(x)[y],    x = bytes / 127.5 - 1 in [-1, 1].

A constant added to all logits of an image changes E and not p(y|x): that is the freedom which training on p(x) uses.

Reference: Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi and Swersky, "Your Classifier is Secretly an Energy Based Model and You
Should Treat it Like One", ICLR 2020, https://arxiv.org/abs/1912.03263
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines.backbones.wide_resnet import WideResNet, WideResNetArchitecture
from baselines.igebm import langevin
from baselines.system import Scores, StepSamples
from vaebm.errors import UserError, did_you_mean
from vaebm.noise import normal, uniform
from vaebm.training.batches import to_uint8

SCORES = {
    "px": "logsumexp_y f(x)[y] = -E(x)",
    "py": "max_y p(y|x)",
    "pxgrad": "-||d log p(x) / dx||",
}


def energy(logits: Tensor) -> Tensor:
    """Return E(x) = -logsumexp_y f(x)[y] (N,), given the logits f(x) (N, classes)."""
    return -logits.logsumexp(dim=1)


def run_chains(classifier: nn.Module, x: Tensor, noise: Callable[[int], Tensor], recipe: Any) -> Tensor:
    """Run x <- x + step_size d log p/dx + noise_scale n_k on images (N, C, H, W) around [-1, 1], which nothing holds there.

    The step of Langevin dynamics with rate alpha, x + alpha/2 d log p/dx + sqrt(alpha) n, is step_size = alpha/2 and
    noise_scale = sqrt(alpha). The published setting, alpha/2 = 1 and noise 0.01, is far colder than that.

    Args:
        noise: k -> standard normal noise of x's shape.
        recipe: has ``steps``, ``step_size`` and ``noise_scale``.
    """
    how = {"steps": recipe.steps, "step_size": recipe.step_size, "noise_scale": recipe.noise_scale}
    return langevin(lambda x: energy(classifier(x)), x, noise, **how)


@dataclass(frozen=True)
class ClassifierScoring:
    """How a classifier scores.

    ``score``: ``"px"``: log p(x) up to a constant; ``"py"``: the largest class probability; ``"pxgrad"``: minus the Euclidean norm of
    d log p / dx, for x in [-1, 1]. ``noise``: standard deviation of Gaussian noise that is added to x first: 0 adds none, the
    released evaluation of JEM 0.03.
    """

    score: str = "px"
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise UserError(f"score {self.score!r}: unknown.{did_you_mean(str(self.score), SCORES)}")
        if not 0 <= self.noise <= 1:
            raise UserError(f"noise {self.noise}: needed a number in [0, 1]")


class ClassifierScores(Scores):
    """A system whose network is a classifier (N, C, H, W) -> (N, classes), scored through its logits."""

    score_options = ("score", "noise")

    def describe_score(self) -> dict[str, Any]:
        kinds = {"py": "class probability", "pxgrad": "gradient of the unnormalised log density"}
        kind = kinds.get(self.settings.score, "unnormalised log density")
        noise = f"noise of sd {self.settings.noise:g}, 1 draw" if self.settings.noise else "no noise"
        return {"score": SCORES[self.settings.score], "estimator": f"{kind}, x = bytes / 127.5 - 1, {noise}"}

    def log_density(self, pixels: Tensor, keys: Sequence[int]) -> Tensor:
        """Return the score (n,) that the recipe names."""
        x = pixels / 127.5 - 1
        if self.settings.noise:
            shape = tuple(pixels.shape[1:])
            x = x + self.settings.noise * normal(self.seed, keys, "scored", shape, self.device)
        if self.settings.score == "py":
            return self.network(x).softmax(dim=1).amax(dim=1)
        if self.settings.score == "px":
            return -energy(self.network(x))
        differentiated = torch.is_grad_enabled()  # someone differentiates the norm itself
        with torch.enable_grad():
            x = x if x.requires_grad else x.requires_grad_()
            (gradient,) = torch.autograd.grad(energy(self.network(x)).sum(), x, create_graph=differentiated)
        return -gradient.flatten(1).norm(dim=1)

    @torch.no_grad()
    def classify(self, images: np.ndarray) -> np.ndarray:
        """Return p(y|x), float64 (N, classes), of uint8 images (N, H, W, C)."""
        probabilities = lambda part: self.network(self.keyed(part)[0] / 127.5 - 1).double().softmax(1).cpu().numpy()
        found = self.in_batches(probabilities, images)
        return np.concatenate([np.empty((0, self.network.architecture.classes)), *found])


@dataclass(frozen=True)
class JEMRecipe(ClassifierScoring):
    """And how a chain moves; see :func:`run_chains`.

    Published: chains of training, 20 steps per update from a buffer, and for new samples a thousand rounds of 40 steps and more.
    A chain here starts from uniform noise in [-1, 1], so that a sample depends on its seed alone.
    """

    steps: int = 100
    step_size: float = 1.0
    noise_scale: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or self.step_size <= 0 or self.noise_scale < 0:
            chain = f"steps {self.steps}, step_size {self.step_size}, noise_scale {self.noise_scale}"
            raise UserError(f"chain of {chain}: step_size must be positive, the others not negative")


class JEMSystem(ClassifierScores, StepSamples):
    """JEM as a system under test: scores by the logits, samples of no chosen class by a chain from uniform noise."""

    kind = "jem"
    Architecture, Network, Recipe = WideResNetArchitecture, WideResNet, JEMRecipe

    def start(self, seeds: Sequence[int]) -> Tensor:
        """Return uniform noise in [-1, 1] (n, C, H, W)."""
        height, width, channels = self.image_shape
        return 2 * uniform(self.seed, seeds, "x_0", (channels, height, width), self.device) - 1

    def advance(self, x: Tensor, noise: Callable[[int], Tensor], steps: int) -> Tensor:
        """Make ``steps`` steps of the chain."""
        return run_chains(self.network, x, noise, replace(self.settings, steps=steps))

    def show(self, x: Tensor) -> np.ndarray:
        """Return x in [-1, 1] as uint8 (n, H, W, C)."""
        return to_uint8((x + 1) / 2)
