"""Cards of the systems of the paper's tables: what each is, what can be done with it here, and how its samples or scores come in.

A card is ``cards/<name>.toml``, described by ``schemas/card-1.json``. Systems that are not implemented here have one, too. A card holds no
result: what papers report stands in ``leaderboards/published.csv``, under the card's name.
"""

import json
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from vaebm.errors import UserError

FOLDER = Path(__file__).parent
SCHEMA = FOLDER / "schemas" / "card-1.json"
IMPORTS = {
    "samples": "--suite generation --systems none --samples {name}=FOLDER",
    "scores": "--suite ood --systems none --scores {name}=FILE.npz",
}


@dataclass(frozen=True)
class Public:
    """Code or weights that the authors, or others, have published.

    Attributes:
        what, where: for people: ``"weights, CIFAR-10"``, a repository and a file, or a site.
        format: of the files: ``"PyTorch"``, ``"TensorFlow 1"``, ``"Chainer"``, ...
        verified: whether that was read in the repository; no link was followed and no weights were opened.
    """

    what: str
    where: str
    format: str
    verified: bool


@dataclass(frozen=True)
class Card:
    """What is known of a system.

    Attributes:
        name: of the system and of its file.
        title, summary: for people.
        family: ``"energy-based"``, ``"VAE"``, ``"GAN"``, ...
        citation: key in ``leaderboards/references.bib``.
        training: ``"unsupervised"``, ``"class-conditional"`` or ``"supervised"``.
        abilities: what its class here does: ``"score"``, ``"sample"``, ``"train"``, ``"official"`` (reads published weights); none without
            a class.
        imports: ``"samples"`` and ``"scores"`` -> what a file of them is to hold.
        public: what is published.
        recompute: what can be recomputed from that, and what cannot.
        recipe: how the published samples or scores were made, as far as that is known.
        reported: the tables of ``leaderboards/published.csv`` with a number under this name.
        checkpoints: data set -> file in ``baselines/checkpoints``.
        origin, licence: where the bundled weights come from and on which terms.
    """

    name: str
    title: str
    summary: str
    citation: str
    training: str
    family: str = ""
    abilities: tuple[str, ...] = ()
    imports: dict[str, str] = field(default_factory=dict)
    public: tuple[Public, ...] = ()
    recompute: str = ""
    recipe: str = ""
    reported: tuple[str, ...] = ()
    checkpoints: dict[str, str] = field(default_factory=dict)
    origin: str = ""
    licence: str = ""

    def path(self, dataset: str = "cifar10") -> Path:
        """Return the bundled checkpoint for a data set.

        Raises:
            UserError: there is none.
        """
        if dataset not in self.checkpoints:
            only = f", only for {', '.join(self.checkpoints)}" if self.checkpoints else ""
            raise UserError(f"{self.title}: no weights for {dataset} are bundled{only}")
        return FOLDER / "checkpoints" / self.checkpoints[dataset]

    @property
    def bundled(self) -> list[str]:
        """Data sets whose checkpoint is there."""
        return [dataset for dataset in self.checkpoints if self.path(dataset).is_file()]

    @property
    def commands(self) -> dict[str, str]:
        """``"samples"`` and ``"scores"``, as far as they can come in -> the command that measures them under this name."""
        return {kind: f"python benchmark.py {IMPORTS[kind].format(name=self.name)}" for kind in self.imports}


def card_names() -> list[str]:
    """Return the names of all cards, sorted."""
    return sorted(path.stem for path in (FOLDER / "cards").glob("*.toml"))


def read_card(name: str) -> Card | None:
    """Return the card of a system; None for one that has none, as another package's."""
    if name not in card_names():
        return None
    table = tomllib.loads((FOLDER / "cards" / f"{name}.toml").read_text(encoding="utf-8"))
    lists = {"abilities": tuple(table.get("abilities", ())), "reported": tuple(table.get("reported", ()))}
    return Card(**{**table, **lists, "name": name, "public": tuple(Public(**each) for each in table.get("public", ()))})


def check_card(table: dict[str, Any]) -> str:
    """Return what is wrong with a card, ``"public/0/where: 3 is not of type 'string'"``; empty where it fits the schema."""
    import jsonschema

    error = jsonschema.exceptions.best_match(_validator().iter_errors(table))
    place = "" if error is None else "/".join(map(str, error.absolute_path))
    return "" if error is None else f"{place}: {error.message}" if place else error.message


@cache
def _validator() -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
