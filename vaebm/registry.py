"""Lazy registries: names that cost nothing to list and import their target only when it is asked for."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from vaebm.errors import UserError, did_you_mean


class Registry(Mapping[str, str]):
    """A mapping from a name to ``"module:attribute"``; ``load(name)`` imports the target.

    Args:
        kind: what is registered, for messages: ``"system"``, ``"suite"``, ...
        targets: the names this project ships.
        group: entry-point group through which installed packages add names; a package cannot replace a shipped name.
    """

    def __init__(self, kind: str, targets: Mapping[str, str], group: str | None = None) -> None:
        self.kind = kind
        self._targets = dict(targets)
        if group is not None:
            for entry in entry_points(group=group):
                self._targets.setdefault(entry.name, entry.value)

    def __getitem__(self, name: str) -> str:
        try:
            return self._targets[name]
        except KeyError:
            raise UserError(f"unknown {self.kind} {name!r}.{did_you_mean(name, self._targets)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._targets

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def load(self, name: str) -> Any:
        """Import and return the target of ``name``.

        Raises:
            UserError: the name is unknown (with the nearest known one).
        """
        module, _, attribute = self[name].partition(":")
        return getattr(import_module(module), attribute)
