"""Lazy registries: names that cost nothing to list and import their target only when it is asked for."""

import sys
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
        group: entry-point group through which installed packages add names; a package cannot replace a name that is there (a warning on
            stderr says so).

    Attributes:
        packages: name -> the installed package that brings it; shipped names are not in it.
    """

    def __init__(self, kind: str, targets: Mapping[str, str], group: str | None = None) -> None:
        self.kind = kind
        self.packages: dict[str, str] = {}
        self._targets = dict(targets)
        for entry in entry_points(group=group) if group else ():
            package = entry.dist.name if entry.dist else entry.value
            if (taken := self._targets.get(entry.name)) is None:
                self._targets[entry.name], self.packages[entry.name] = entry.value, package
            elif taken != entry.value:
                why = f"the name is taken by {taken}; needed another name in its entry point"
                print(f"warning: {kind} {entry.name!r} of package {package} is not used: {why}", file=sys.stderr)

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
            UserError: the name is unknown (with the nearest known one), or what a package says of it cannot be imported.
        """
        module, _, attribute = self[name].partition(":")
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            if name not in self.packages:
                raise
            broken = f"{self.kind} {name!r} of package {self.packages[name]}: {self[name]} cannot be imported"
            raise UserError(f"{broken} ({type(error).__name__}: {error}); mend or uninstall the package") from error
