"""Systems of installed packages: what an entry point of the group ``vaebm.systems`` names is called, and what it returns is looked at.

A target with ``from_checkpoint`` is a class like those of this package and is built from a native checkpoint. Every other one is called
with those of ``device``, ``batch_size``, ``seed`` and ``checkpoint`` (a path, where the user gave one) that its signature takes.
"""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from baselines import SYSTEMS
from vaebm.errors import UserError

GIVEN = "device, batch_size, seed, checkpoint"
DICTS = ("fingerprint", "protocol", "recipe")


def build(name: str, target: Any, checkpoint: Path | None = None, **given: Any) -> Any:
    """Call ``target`` and return its system: an object with ``image_shape`` (H, W, C) and ``score(images)`` or ``sample(seeds)``.

    Raises:
        UserError: it cannot be called with what there is to give, it takes no checkpoint though one was given, or what it returned lacks
            something or has it in another form.
    """
    who = f"system {name!r} of package {SYSTEMS.packages[name]}"
    if not callable(target):
        raise UserError(f"{who}: found a {type(target).__name__}, needed a class or function that returns the system")
    if checkpoint is not None:
        given["checkpoint"] = checkpoint
    system = target(**_taken(name, who, target, given))
    _look_at(who, system)
    return system


def _taken(name: str, who: str, target: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Those of ``given`` that the signature takes."""
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except ValueError:  # of some built-in types: nothing is known of what they take
        parameters = []
    if any(each.kind == each.VAR_KEYWORD for each in parameters):
        return given
    named = {each.name: each.default is each.empty for each in parameters if each.kind != each.VAR_POSITIONAL}
    for argument, needed in named.items():
        if needed and argument == "checkpoint" and argument not in given:
            raise UserError(f"{who}: brings no weights; give some with --checkpoint {name}=PATH")
        if needed and argument not in given:
            raise UserError(f"{who}: needs an argument {argument!r}; what it can take is {GIVEN}")
    if "checkpoint" in given and "checkpoint" not in named:
        raise UserError(f"{who}: takes no checkpoint; leave --checkpoint {name}={given['checkpoint']} out")
    return {key: value for key, value in given.items() if key in named}


def _look_at(who: str, system: Any) -> None:
    if not any(callable(getattr(system, method, None)) for method in ("score", "sample")):
        raise UserError(
            f"{who}: found a {type(system).__name__} without score(images) and sample(seeds), needed one of them"
        )
    shape = getattr(system, "image_shape", None)
    if not (isinstance(shape, tuple) and len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)):
        raise UserError(f"{who}: found image_shape {shape!r}, needed a tuple (H, W, C), e.g. (32, 32, 3)")
    for word in ("size", "dataset"):
        if not isinstance(found := getattr(system, word, ""), str):
            raise UserError(f"{who}: found {word} {found!r}, needed a text")
    for facts in DICTS:
        found = getattr(system, facts, {})
        try:
            plain = isinstance(found, dict) and json.loads(json.dumps(found, allow_nan=False)) == found
        except (TypeError, ValueError):
            plain = False
        if not plain:
            raise UserError(
                f"{who}: found {facts} {found!r}, needed a dictionary that JSON can hold (texts, numbers, lists)"
            )
