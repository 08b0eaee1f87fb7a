"""From a name or a file to a system: cards say which checkpoint is bundled and where it came from."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baselines import SYSTEMS
from vaebm.errors import UserError, did_you_mean

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Card:
    """What a shipped system is.

    Attributes:
        title, summary: for people.
        citation: key in ``leaderboards/references.bib``.
        training: ``"unsupervised"`` or ``"supervised"``.
        checkpoints: data set -> file in ``baselines/checkpoints``.
        origin, licence: where the weights come from and on which terms.
    """

    title: str
    summary: str
    citation: str
    training: str
    checkpoints: dict[str, str]
    origin: str
    licence: str

    def path(self, dataset: str = "cifar10") -> Path:
        """Return the bundled checkpoint for a data set.

        Raises:
            UserError: there is none.
        """
        if dataset not in self.checkpoints:
            raise UserError(
                f"{self.title}: no weights for {dataset} are bundled, only for {', '.join(self.checkpoints)}"
            )
        return FOLDER / "checkpoints" / self.checkpoints[dataset]

    @property
    def bundled(self) -> list[str]:
        """Data sets whose checkpoint is there."""
        return [dataset for dataset in self.checkpoints if self.path(dataset).is_file()]


def read_card(name: str) -> Card | None:
    """Return the card of a shipped system; None for one that another package brings."""
    path = FOLDER / "cards" / f"{name}.toml"
    return Card(**tomllib.loads(path.read_text())) if path.is_file() else None


def load_system(
    name: str,
    path: Path | None = None,
    *,
    dataset: str = "cifar10",
    device: str = "cpu",
    batch_size: int = 100,
    seed: int = 0,
    **options: Any,
) -> Any:
    """Build a system from its bundled checkpoint, or from a user's.

    Args:
        name: a registered system; or any label, when ``path`` is given: then the checkpoint says what it is.
        path: a native checkpoint, or published files: ``checkpoint.pt`` (an NVAE), ``checkpoint.pt,EBM.pth`` (a VAEBM), or one of a layout
            in ``baselines.official``.
        dataset: which of the bundled checkpoints, without ``path``.
        options: what of the recipe to override; only those that the system knows are passed on.

    Raises:
        UserError: the name or the file is unknown, or the file is not a checkpoint of a known kind.
    """
    from vaebm.checkpoints import Checkpoint, load_checkpoint

    nvae: Checkpoint | None = None
    if path is None:
        target, card = SYSTEMS.load(name), read_card(name)
        if card is None:
            raise UserError(f"system {name!r} ships no checkpoint: give one with --checkpoint {name}=PATH")
        path = card.path(dataset)
        checkpoint = load_checkpoint(path)
    else:
        checkpoint, nvae = _read(str(path))
        if checkpoint.kind not in SYSTEMS:
            raise UserError(
                f"--checkpoint {name}={path}: unknown kind {checkpoint.kind!r}.{did_you_mean(checkpoint.kind, SYSTEMS)}"
            )
        if name in SYSTEMS and name != checkpoint.kind:
            raise UserError(
                f"--checkpoint {name}={path}: the file holds a {checkpoint.kind}; name it {checkpoint.kind} or a label of your own"
            )
        target = SYSTEMS.load(checkpoint.kind)
    known = {key: value for key, value in options.items() if key in getattr(target, "options", ())}
    settings = {"device": device, "batch_size": batch_size, "seed": seed, "origin": str(path), **known}
    if nvae is not None:
        settings["nvae"] = nvae
    try:
        system = target.from_checkpoint(checkpoint, **settings)
        system.dataset = checkpoint.card.get("dataset", "")
        return system
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None
    except (
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # the card lacks what its system needs, or says what it does not know
        wrong = f"not the card of a {checkpoint.kind} ({type(error).__name__}: {error})"
        raise UserError(f"{path.with_suffix('.json')}: {wrong}") from error


def _read(spec: str) -> tuple[Any, Any]:
    """Return the checkpoint that ``spec`` names, and the NVAE of an official pair."""
    from baselines.official import read_official
    from vaebm.checkpoints.models import read_files
    from vaebm.checkpoints.pickles import ForeignPickleError

    if not spec.endswith(".safetensors") and "," not in spec:
        try:
            if found := read_official(Path(spec)):
                return found, None
        except ForeignPickleError:
            pass  # official NVAE files may want classes that their own reader knows how to name
    return read_files(spec)
