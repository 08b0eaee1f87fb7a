"""From a name or a file to a system: cards say which checkpoint is bundled and where it came from."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baselines import SYSTEMS, plugins
from baselines.cards import Card, card_names, read_card
from vaebm.errors import UserError, did_you_mean

__all__ = ["SAMPLE_BATCH", "Card", "chosen", "facts", "find_system", "load_system", "read_card", "shipped_cards"]

BATCH = 100  # images scored together, unless told otherwise
SAMPLE_BATCH = 16  # images drawn together, unless told otherwise: vaebm.sampling.SAMPLE_BLOCK, without torch


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
    # Arithmetic decides comparability where it is not the usual one, and the number of images drawn together their last bits.
    arithmetic = dict(getattr(system, "arithmetic_facts", {}))
    tables["protocol"] |= arithmetic
    sampling |= arithmetic
    if (together := getattr(system, "sample_batch", SAMPLE_BATCH)) != SAMPLE_BATCH:
        sampling["sample_batch"] = together
    return {"image_shape": system.image_shape, **texts, **tables, "sampling": sampling}


def chosen(
    names: str, given: Mapping[str, str], dataset: str, *, random_weights: bool = False, **settings: Any
) -> dict[str, dict[str, Any]]:
    """Load the systems of a run: name -> the system and what it says of itself (:func:`facts`), or the reason why there is none.

    Args:
        names: with commas, ``"all"`` (with weights for the data set) or ``"none"``.
        given: further ones, or others in their place: name -> checkpoint.
        dataset: what they model; one that nothing models stands for ``"cifar10"``.
        random_weights: no checkpoint, but the published architectures with random weights.
        settings: as for :func:`load_system`.

    Raises:
        UserError: as :func:`load_system`.
    """
    if dataset == "gaussians25":  # points of the plane: models of their own
        return _points(names)
    if random_weights:
        if dataset != "cifar10":
            raise UserError(
                f"--dataset {dataset}: --random-weights knows the published CIFAR-10 architectures alone; leave it out"
            )
        return _random(names, given, **settings)
    cards = shipped_cards()
    if all(dataset not in card.bundled for card in cards.values()):
        dataset = "cifar10"  # suites that care what a system was trained on look at its ``dataset``
    bundled = [name for name, card in cards.items() if dataset in card.bundled]
    asked = {"all": bundled, "none": []}.get(names, [name for name in names.split(",") if name])
    loaded: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys([*asked, *given]):
        path = Path(given[name]) if name in given else None
        if path is None and find_system(name) and name in cards and name not in bundled:
            loaded[name] = _none(f"no weights for {dataset} are bundled; give some with --checkpoint {name}=PATH")
        else:
            loaded[name] = described(load_system(name, path, dataset=dataset, **settings))
    return loaded


def described(system: Any) -> dict[str, Any]:
    """Return a system with what it says of itself."""
    return {"system": system, **facts(system)}


def _none(reason: str) -> dict[str, Any]:
    return {"system": None, "image_shape": (0, 0, 0), "reason": reason}


def _points(names: str) -> dict[str, dict[str, Any]]:
    from baselines.gaussians25 import FILES, load_gaussians25

    models = load_gaussians25()
    weights = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in FILES.items()}
    return {
        name: {"system": model, "image_shape": (0, 0, 0), "size": model.size, "fingerprint": {"weights": weights[name]}}
        for name, model in models.items()
        if names == "all" or name in names.split(",")
    }


def _random(
    names: str,
    given: Mapping[str, str],
    *,
    sample_batch: int | str,
    dtype: str,
    compile: bool,
    device: str,
    batch_size: int | str,
    seed: int,
    **_: Any,
) -> dict[str, dict[str, Any]]:
    from baselines.random_weights import RANDOM, random_weights

    if given:
        raise UserError("--checkpoint: --random-weights times networks without any; leave one of them out")
    asked = {"all": list(RANDOM), "none": []}.get(names, [name for name in names.split(",") if name])
    made: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(asked):
        system = random_weights(name, device=device, batch_size=batch_size, seed=seed)
        made[name] = described(compute(system, name, sample_batch=sample_batch, dtype=dtype, compile=compile))
    return made


def load_system(
    name: str,
    path: Path | None = None,
    *,
    dataset: str = "cifar10",
    device: str = "cpu",
    batch_size: int | str = BATCH,
    seed: int = 0,
    sample_batch: int | str = SAMPLE_BATCH,
    dtype: str = "float32",
    compile: bool = False,
    **options: Any,
) -> Any:
    """Build a system from its bundled checkpoint, or from a user's.

    Args:
        name: a registered system; or any label, when ``path`` is given: then the checkpoint says what it is.
        path: a native checkpoint, or published files: ``checkpoint.pt`` (an NVAE), ``checkpoint.pt,EBM.pth`` (a VAEBM), or one of a layout
            in ``baselines.official``; for a system of another package whatever that reads.
        dataset: which of the bundled checkpoints, without ``path``.
        batch_size: images scored together; ``"auto"``: as many as fit.
        sample_batch: images drawn together; ``"auto"``: as many as fit.
        dtype, compile: see :func:`baselines.numerics.apply`.
        options: what of the recipe to override; only those that the system knows are passed on.

    Raises:
        UserError: the name or the file is unknown, the file is no checkpoint of a known kind, or another package's system lacks something.
    """
    if name in SYSTEMS.packages and not hasattr(target := SYSTEMS.load(name), "from_checkpoint"):
        images = BATCH if batch_size == "auto" else batch_size  # others do not know the word
        system = plugins.build(name, target, path, device=device, batch_size=images, seed=seed)
    else:
        system = _from_checkpoint(name, path, dataset, device=device, batch_size=batch_size, seed=seed, **options)
    return compute(system, name, sample_batch=sample_batch, dtype=dtype, compile=compile)


def compute(system: Any, name: str, *, sample_batch: int | str, dtype: str, compile: bool) -> Any:
    """Let a system draw so many images together, and compute as :func:`baselines.numerics.apply` says; return it.

    Raises:
        UserError: it cannot.
    """
    from baselines import numerics
    from baselines.common import Adapter

    if isinstance(system, Adapter):
        numerics.apply(system, dtype=dtype, compile=compile, sample_batch=sample_batch)
    elif (sample_batch, dtype, compile) != (SAMPLE_BATCH, "float32", False):
        raise UserError(
            f"{name}: another package's system chooses its arithmetic; leave --sample-batch, --dtype and --compile out"
        )
    return system


def _from_checkpoint(name: str, path: Path | None, dataset: str, **options: Any) -> Any:
    """Build a system of a kind that is known here; see :func:`load_system`."""
    from vaebm.checkpoints import Checkpoint, load_checkpoint

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
    always = ("device", "batch_size", "seed")
    known = {key: value for key, value in options.items() if key in (*always, *getattr(target, "options", ()))}
    settings = {**known, "origin": str(path)}
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
