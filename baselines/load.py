"""From a name or a file to a system: cards say which checkpoint is bundled and where it came from."""

from pathlib import Path
from typing import Any

from baselines import SYSTEMS, plugins
from baselines.cards import Card, card_names, read_card
from vaebm.errors import UserError, did_you_mean

__all__ = ["Card", "facts", "find_system", "load_system", "read_card", "shipped_cards"]


def find_system(name: str) -> str:
    """Return the target of a registered system.

    Raises:
        UserError: the name is unknown; or there is a card but no class: then the line says by which path its samples or scores come in.
    """
    if name not in SYSTEMS and (card := read_card(name)):
        ways = "; ".join(f"its {kind} come in with {command}" for kind, command in card.commands.items())
        raise UserError(f"--systems {name}: {card.title} ({card.family}) has a card but no class here; {ways}")
    if name not in SYSTEMS:
        raise UserError(f"unknown system {name!r}.{did_you_mean(name, {*SYSTEMS, *card_names()})}")
    return SYSTEMS[name]


def shipped_cards() -> dict[str, Card]:
    """Return the cards of the systems that have a class here, by name."""
    names = (name for name in SYSTEMS if name not in SYSTEMS.packages)
    return {name: card for name in names if (card := read_card(name))}


def facts(system: Any) -> dict[str, Any]:
    """Return what a system says of itself: image_shape, size, dataset, fingerprint, protocol, sampling; empty is what another package's
    leaves out. What of the recipe decides scores alone is no part of how samples are made."""
    texts = {name: getattr(system, name, "") for name in ("size", "dataset")}
    tables: dict[str, dict[str, Any]] = {
        name: dict(getattr(system, name, {})) for name in ("fingerprint", "protocol", "recipe")
    }
    of_scores = {"importance_samples", *getattr(system, "score_options", ())} - {*getattr(system, "shared_options", ())}
    sampling = {key: value for key, value in tables.pop("recipe").items() if key not in of_scores}
    return {"image_shape": system.image_shape, **texts, **tables, "sampling": sampling}


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
            in ``baselines.official``; for a system of another package whatever that reads.
        dataset: which of the bundled checkpoints, without ``path``.
        options: what of the recipe to override; only those that the system knows are passed on.

    Raises:
        UserError: the name or the file is unknown, the file is no checkpoint of a known kind, or another package's system lacks something.
    """
    from vaebm.checkpoints import Checkpoint, load_checkpoint

    if name in SYSTEMS.packages and not hasattr(target := SYSTEMS.load(name), "from_checkpoint"):
        return plugins.build(name, target, path, device=device, batch_size=batch_size, seed=seed)
    nvae: Checkpoint | None = None
    if path is None:
        find_system(name)
        target, card = SYSTEMS.load(name), read_card(name)
        if card is None or name in SYSTEMS.packages:
            raise UserError(f"system {name!r} ships no checkpoint: give one with --checkpoint {name}=PATH")
        path = card.path(dataset)
        checkpoint = load_checkpoint(path)
    else:
        checkpoint, nvae = _read(str(path))
        if checkpoint.kind not in SYSTEMS:
            raise UserError(
                f"--checkpoint {name}={path}: unknown kind {checkpoint.kind!r}.{did_you_mean(checkpoint.kind, SYSTEMS)}"
            )
        if name in (*SYSTEMS, *card_names()) and name != checkpoint.kind:  # it would stand beside another one's numbers
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
        if Path(spec).is_dir():
            raise UserError(
                f"{spec}: a folder that holds no diffusers model; needed one (unet/config.json or config.json), or a file"
            )
    return read_files(spec)
