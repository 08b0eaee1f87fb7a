"""What the native systems share: a network, the recipe of its card, and one seed per image.

A system's own file names its ``Architecture``, ``Network`` and ``Recipe`` and writes only the mathematics: ``log_density``
where it scores (:class:`Scores`), ``draw`` where it samples (:class:`Samples`), or a chain (:class:`StepSamples`).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from baselines.common import Adapter, changed, override
from vaebm.checkpoints import Checkpoint, load_network
from vaebm.noise import ahead, content_keys, normal


class NativeSystem(Adapter):
    """A trained network as a system under test.

    Args:
        network: of class ``Network``, in float32.
        recipe: how it scores and samples: an instance of ``Recipe``.
        size: ``"mini"``, ``"small"`` or ``"paper"``.
        weights_hash: sha256 of the weights, for the fingerprint.
        device: where to compute.
        batch_size: images per pass, or ``"auto"``; does not change results.
        seed: seed of all noise.

    A subclass sets:
        kind: as in checkpoints and in the registry.
        Architecture: a frozen dataclass with ``image_shape`` (H, W, C); what a card's ``architecture`` may say.
        Network: a module built from an ``Architecture``, kept as ``network.architecture``; its state dict is the checkpoint.
        Recipe: a frozen dataclass whose every field has a default; what a card's ``sampling`` may say and a user override.
        score_options: the fields of the recipe that decide scores; the others decide samples alone.
        shared_options: those of them that decide samples, too.
    """

    kind: ClassVar[str]
    Architecture: ClassVar[type]
    Network: ClassVar[type[nn.Module]]
    Recipe: ClassVar[type]
    score_options: ClassVar[tuple[str, ...]] = ()
    shared_options: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "Recipe"):
            cls.options = tuple(field.name for field in fields(cls.Recipe))

    def __init__(
        self,
        network: Any,
        recipe: Any = None,
        *,
        size: str = "mini",
        weights_hash: str = "",
        device: torch.device | str = "cpu",
        batch_size: int | str = 100,
        seed: int = 0,
    ) -> None:
        # Evaluation mode and frozen: a chain needs gradients of x alone.
        self.network: Any = network.to(device).eval().requires_grad_(False)
        self.size, self.weights_hash, self.seed = size, weights_hash, seed
        self.device, self.batch_size = torch.device(device), batch_size
        self.image_shape: tuple[int, int, int] = self.network.architecture.image_shape
        self.use(self.Recipe() if recipe is None else recipe)

    def use(self, recipe: Any) -> None:
        """Score and sample by ``recipe``, an instance of ``Recipe``, from now on.

        Raises:
            UserError: the network cannot.
        """
        self.settings, self.recipe = recipe, asdict(recipe)
        decides_scores = {name: self.recipe[name] for name in self.score_options}
        about = {"kind": self.kind, "weights": self.weights_hash, "seed": self.seed}
        self.fingerprint = {**about, **decides_scores, **self.arithmetic_facts}
        self.protocol = self.describe_score()

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        device: torch.device | str = "cpu",
        batch_size: int | str = 100,
        seed: int = 0,
        origin: str = "checkpoint",
        **options: Any,
    ) -> Self:
        """Build the system that a checkpoint describes.

        Args:
            origin: where the checkpoint came from, for error messages.
            options: override entries of the card's recipe; the names are ``options`` of the class.

        Raises:
            UserError: an option is unknown or out of range, or the weights do not fit the card.
        """
        card = checkpoint.card
        recipe = cls.Recipe(**override({**asdict(cls.Recipe()), **card["sampling"]}, options, origin))
        architecture = cls.Architecture(**tuples(card["architecture"]))
        network = load_network(lambda: cls.Network(architecture), checkpoint.weights, origin)
        about: dict[str, Any] = {"size": card["size"], "weights_hash": card["sha256"]}
        return cls(network, recipe, **about, device=device, batch_size=batch_size, seed=seed)

    def with_recipe(self, **changes: Any) -> Self:
        """Return a system with the same network, not a copy of it, and some entries of the recipe changed.

        Raises:
            UserError: an entry is unknown or out of range.
        """
        other = copy.copy(self)
        with changed(self.kind, changes):
            other.use(self.Recipe(**override(self.recipe, changes, self.kind)))
        return other

    @property
    def whole(self) -> nn.Module:
        """See :class:`~baselines.common.Adapter`."""
        return self.network

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that samples, or scores where there are none, run through, by name."""
        return {"network": self.network}

    def describe_score(self) -> dict[str, Any]:
        """Return the protocol of a score, ``{"score": "-E(x)", "estimator": "..."}``; empty for a system without one."""
        return {}


class Scores(NativeSystem):
    """A native system that scores. A subclass writes :meth:`log_density`."""

    def log_density(self, pixels: Tensor, keys: Sequence[int]) -> Tensor:
        """Return log p(x), up to a constant where it is not normalised, (n,).

        Args:
            pixels: the images' bytes as floats in [0, 255], (n, C, H, W); the result must be differentiable in them.
            keys: one integer per image, made of its bytes: the key of all noise, so that a score depends on its image alone.
        """
        raise NotImplementedError

    @torch.no_grad()
    def score(self, images: np.ndarray) -> np.ndarray:
        """Return ``log_density``, float64 (N,), of uint8 images (N, H, W, C); higher is more in-distribution."""
        found = self.in_batches(lambda part: self.log_density(*self.keyed(part)).double().cpu().numpy(), images)
        return np.concatenate([np.empty(0), *found])

    def score_gradient_norm(self, images: np.ndarray) -> np.ndarray:
        """Return the Euclidean norm of d score / d x, float64 (N,), of uint8 images (N, H, W, C), for x in [0, 1]."""
        # In bytes; a unit of x is 255 of them.
        found = self.in_batches(lambda part: 255 * gradient_norm(self.log_density, *self.keyed(part)), images)
        return np.concatenate([np.empty(0), *found])

    def keyed(self, images: np.ndarray) -> tuple[Tensor, list[int]]:
        """Return what :meth:`log_density` takes of uint8 images (n, H, W, C): their bytes as floats (n, C, H, W), and their keys."""
        return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(self.device).float(), content_keys(images)


class Samples(NativeSystem):
    """A native system that samples. A subclass writes :meth:`draw`."""

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        """Return one uint8 image (n, H, W, C) per seed, all noise keyed by it (``vaebm.noise``)."""
        raise NotImplementedError

    @torch.no_grad()
    def sample(self, seeds: Sequence[int]) -> np.ndarray:
        """Return one uint8 image (N, H, W, C) per seed."""
        return self.in_blocks(self.draw, seeds)


class StepSamples(Samples):
    """A native system whose sample is the end of a chain of :attr:`total_steps` steps, and which can show the chain on its way.

    A subclass writes :meth:`start`, :meth:`advance` and :meth:`show`.

    Attributes:
        chain: what the noise of a step is for, before the step's number.
    """

    chain: ClassVar[str] = "langevin"

    @property
    def total_steps(self) -> int:
        """Steps of the chain behind an image."""
        return self.settings.steps

    def start(self, seeds: Sequence[int]) -> Tensor:
        """Return where the chains start, (n, C, H, W) or whatever they move in."""
        raise NotImplementedError

    def advance(self, x: Tensor, noise: Callable[[int], Tensor], steps: int) -> Tensor:
        """Make ``steps`` steps from x (n, C, H, W); ``noise(k)`` is standard normal noise of x's shape for the k-th of them.

        Raises:
            UserError: ``steps`` is negative.
        """
        raise NotImplementedError

    def show(self, x: Tensor) -> np.ndarray:
        """Return what x (n, C, H, W) looks like, uint8 (n, H, W, C)."""
        raise NotImplementedError

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        """Run one chain per seed; return uint8 (n, H, W, C)."""
        return self._ladder(seeds, [self.total_steps])[:, 0]

    def sample_steps(self, seeds: Sequence[int], ladder: Sequence[int]) -> dict[int, np.ndarray]:
        """Return, for every number of steps on the ladder, the images that :meth:`sample` draws with so many (N, H, W, C).

        Raises:
            UserError: a number of steps is negative.
        """
        rungs = sorted(set(ladder))
        stacked = self.in_blocks(lambda filled: self._ladder(filled, rungs), seeds, len(rungs))  # (N, rungs, H, W, C)
        return {steps: stacked[:, i] for i, steps in enumerate(rungs)}

    def _ladder(self, seeds: Sequence[int], rungs: Sequence[int]) -> np.ndarray:
        """One chain passes every rung: its first k steps are the chain of k steps. Returns uint8 (n, rungs, H, W, C)."""
        x = self.start(seeds)
        shape, done, found = tuple(x.shape[1:]), 0, []
        draw = lambda k: normal(self.seed, seeds, f"{self.chain}.{k}", shape, self.device)
        with ahead(draw, rungs[-1]) as noise:
            for steps in rungs:
                of_step = lambda k, done=done: noise(done + k)
                x = self.advance(x, of_step, steps - done)
                done = steps
                found.append(self.show(x))
        return np.stack(found, axis=1)


def gradient_norm(log_density: Callable[..., Tensor], x: Tensor, *given: Any) -> np.ndarray:
    """Return the Euclidean norm of d log_density(x, *given) / d x, float64 (n,), where entry i depends on x[i] alone."""
    with torch.enable_grad():
        x.requires_grad_(True)
        (gradient,) = torch.autograd.grad(log_density(x, *given).sum(), x)
    return gradient.double().flatten(1).norm(dim=1).cpu().numpy()


def tuples(table: dict[str, Any]) -> dict[str, Any]:
    """JSON and TOML know lists only: make them tuples, as the dataclasses have them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
