"""Training configurations: the TOML files of ``baselines/configs`` and a user's own."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from baselines.training import TASKS
from vaebm.errors import UserError, did_you_mean
from vaebm.training.loop import Schedule

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Config:
    """One training configuration, as in the TOML files of ``baselines/configs``."""

    name: str
    kind: str
    size: str
    dataset: str
    architecture: Any
    sampling: Any
    training: Any
    schedule: Schedule


def read_config(kind: str, name: str) -> Config:
    """Read a configuration: ``name`` of a bundled one (``baselines/configs/KIND-NAME.toml``) or the path of a TOML
    file.

    Raises:
        UserError: no such kind or configuration, an unknown or missing key, or a value of the wrong type; the message
        names it.
    """
    task = TASKS.load(kind)
    path = Path(name) if name.endswith(".toml") else CONFIGS / f"{kind}-{name}.toml"
    if not path.is_file():
        bundled = [p.stem.removeprefix(f"{kind}-") for p in CONFIGS.glob(f"{kind}-*.toml")]
        raise UserError(
            f"--config {name}: no such configuration of {kind}.{did_you_mean(name, bundled)} Or give a .toml file."
        )
    try:
        table = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"--config {path.name}: not a TOML file ({error})") from None
    top = {key: value for key, value in table.items() if not isinstance(value, dict)}
    sections = {key: value for key, value in table.items() if isinstance(value, dict)}
    classes = {
        "architecture": task.System.Architecture,
        "sampling": task.System.Recipe,
        "training": task.Options,
        "schedule": Schedule,
    }
    _same_keys(top, ["kind", "size", "dataset"], path.name)
    _same_keys(sections, classes, path.name)
    if top["kind"] != kind:
        raise UserError(f"--config {path.name}: is for {top['kind']!r}, not {kind!r}")
    parsed = {key: _parse(cls, sections[key], f"{path.name} [{key}]") for key, cls in classes.items()}
    return Config(name=path.stem, kind=kind, size=str(top["size"]), dataset=str(top["dataset"]), **parsed)


def _same_keys(table: Mapping[str, Any], known: Any, where: str) -> None:
    for key in table:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}.{did_you_mean(key, known)}")
    for key in known:
        if key not in table:
            raise UserError(f"{where}: {key!r} is missing")


def _parse(cls: type, table: Mapping[str, Any], where: str) -> Any:
    """Build the dataclass ``cls``: keys that have a default may be left out, and types must be those declared."""
    known = {field.name: field for field in fields(cls)}
    values = {}
    for key, value in table.items():
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}.{did_you_mean(key, known)}")
        needed = known[key].type
        if needed is float and type(value) is int:
            value = float(value)
        if isinstance(value, list):
            value = tuple(value)
        if isinstance(needed, type) and type(value) is not needed:
            raise UserError(f"{where}: {key} = {value!r}, needed {needed.__name__}")
        values[key] = value
    try:
        return cls(**values)
    except TypeError as error:
        raise UserError(f"{where}: {error}") from None
