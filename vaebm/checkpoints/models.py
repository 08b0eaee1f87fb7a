"""From a checkpoint to the model that its card describes, and from what a user names to a model with its recipe."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from vaebm.checkpoints.native import Checkpoint, load_checkpoint, load_network
from vaebm.energy import EnergyConfig, EnergyNetwork
from vaebm.errors import UserError
from vaebm.model import VAEBM
from vaebm.nvae import NVAE, NVAEConfig

Config = TypeVar("Config")


def build_nvae(checkpoint: Checkpoint, origin: str) -> NVAE:
    """Return the NVAE of a checkpoint of kind "nvae".

    Args:
        origin: where the checkpoint came from, for error messages.

    Raises:
        UserError: the weights do not fit the card's architecture.
    """
    config = _config(checkpoint, "nvae", NVAEConfig.from_json)
    return load_network(lambda: NVAE(config), checkpoint.part("nvae"), origin)


def build_energy(checkpoint: Checkpoint, origin: str) -> EnergyNetwork:
    """Return the energy network of a checkpoint of kind "vaebm" (or an official "energy"); arguments as for :func:`build_nvae`."""
    config = _config(checkpoint, "energy", EnergyConfig.from_json)
    return load_network(lambda: EnergyNetwork(config), checkpoint.part("energy"), origin)


def _config(checkpoint: Checkpoint, part: str, parse: Callable[[dict[str, Any]], Config]) -> Config:
    try:
        return parse(checkpoint.card["architecture"][part])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        wrong = f"not the card of a {checkpoint.kind} ({type(error).__name__}: {error})"
        raise UserError(f"{checkpoint.path.with_suffix('.json')}: {wrong}") from None


def build_vaebm(checkpoint: Checkpoint, origin: str, nvae: Checkpoint | None = None) -> VAEBM:
    """Return the model of a checkpoint of kind "vaebm".

    Args:
        nvae: the NVAE that its card names; read from beside it without this.

    Raises:
        UserError: the NVAE is missing or another one than the energy was trained against, or weights do not fit their card.
    """
    named = checkpoint.card["nvae"]
    if not isinstance(named, dict) or Path(str(named.get("file", ""))).name != named.get("file"):
        raise UserError(f"{origin}: the card's nvae is no file beside it, needed {{'file': NAME, 'sha256': ...}}")
    nvae = nvae or load_checkpoint(checkpoint.path.with_name(named["file"]))
    if nvae.card["sha256"] != named["sha256"]:
        raise UserError(
            f"{origin}: was trained against another NVAE than {nvae.path.name} (sha256 differs from the card's)"
        )
    return VAEBM(build_nvae(nvae, str(nvae.path)), build_energy(checkpoint, origin))


class NoEnergy(nn.Module):
    """E(x) = 0: makes an NVAE alone a VAEBM."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x))


@dataclass(frozen=True)
class LoadedModel:
    """A model and what its files say of it.

    Attributes:
        model: an NVAE alone has :class:`NoEnergy`.
        recipe: how it is to be sampled: the chain's settings, ``output``, ...
        sha256: of every file that holds its weights, NVAE first, by file name.
        dataset: what it was trained on, as far as its files say.
    """

    model: VAEBM
    recipe: dict[str, Any]
    sha256: dict[str, str]
    dataset: str | None

    @property
    def has_energy(self) -> bool:
        """Whether there is an energy network."""
        return not isinstance(self.model.energy, NoEnergy)


def load_model(spec: str, flag: str = "--checkpoint") -> LoadedModel:
    """Load what a user names as a checkpoint (see :func:`read_files`).

    Raises:
        UserError: a file is missing, damaged or of another kind, or the two do not belong together.
    """
    checkpoint, nvae = read_files(spec)
    card = checkpoint.card
    files = {checkpoint.path.name: card["sha256"]}
    try:
        if checkpoint.kind == "vaebm":
            model = build_vaebm(checkpoint, spec, nvae)
            files = {card["nvae"]["file"]: card["nvae"]["sha256"], **files}
        elif checkpoint.kind == "nvae":
            model = VAEBM(build_nvae(checkpoint, spec), NoEnergy())
        else:
            raise UserError(f"{flag} {spec}: found a checkpoint of kind {checkpoint.kind!r}, needed 'nvae' or 'vaebm'")
        return LoadedModel(model, dict(card["sampling"]), files, card.get("dataset"))
    except (
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # the card lacks something, or says what this version does not know
        wrong = f"not the card of a {checkpoint.kind} ({type(error).__name__}: {error})"
        raise UserError(f"{checkpoint.path.with_suffix('.json')}: {wrong}") from None


def read_files(spec: str) -> tuple[Checkpoint, Checkpoint | None]:
    """Read what a user names as a checkpoint: ``FILE.safetensors``, ``checkpoint.pt``, or ``checkpoint.pt,EBM.pth`` in either order.

    Returns:
        The checkpoint, and the NVAE of an official pair (a native one lies beside its energy and is read by :func:`build_vaebm`).

    Raises:
        UserError: a file is missing, damaged or of another kind, or they do not belong together.
    """
    if spec.endswith(".safetensors"):
        return load_checkpoint(Path(spec)), None
    from vaebm.checkpoints.official import read_official_files  # it builds on this module

    return read_official_files([Path(file) for file in spec.split(",")])
