"""What there is to be measured, for people: registered systems, systems with a card alone, and those of installed packages."""

import json
import textwrap
from collections.abc import Mapping

from tabulate import tabulate

from baselines import SYSTEMS
from baselines.cards import Card, card_names, read_card

WIDTH = 118  # of the card of one system
HEADERS = ("name", "family", "here", "by file", "weights bundled", "licence")  # fits 120 characters
NOTHING = "–"


def as_lines(title: str, texts: Mapping[str, str]) -> str:
    """Return a title and, indented, a line per name."""
    width = max(map(len, texts), default=0)
    return "\n".join([f"{title}:", *(f"  {name:<{width}}  {text}".rstrip() for name, text in texts.items())])


def first_sentence(target: object) -> str:
    """Return the first sentence of a docstring, without its full stop; empty without one."""
    return (target.__doc__ or "").strip().partition("\n")[0].partition(". ")[0].rstrip(".")


def system_names() -> list[str]:
    """Return every name there is: registered ones in their order, then those with a card alone."""
    return [*SYSTEMS, *(name for name in card_names() if name not in SYSTEMS)]


def systems_summary() -> dict[str, str]:
    """Return a line for every system: what it is, and whether weights are bundled or its samples come in from elsewhere."""
    return {name: _summary(name, read_card(name)) for name in system_names()}


def systems_table() -> str:
    """Return name, family, what can be done, what comes in by file, and the bundled weights of every system."""
    rows = [_row(name, read_card(name)) for name in system_names()]
    return tabulate(rows, HEADERS, tablefmt="simple", disable_numparse=True)


def describe(name: str) -> str:
    """Return all that is known of a system: its card as text.

    Args:
        name: of :func:`system_names`.
    """
    card = read_card(name)
    if card is None:
        return f"{name}: {_summary(name, card)}"
    facts = [
        ("what", f"{card.summary}; training: {card.training}"),
        ("citation", f"{card.citation} (leaderboards/references.bib)"),
        ("here", ", ".join(card.abilities) or NOTHING),
        *((f"{kind} come in", f"{card.commands[kind]} ({what})") for kind, what in card.imports.items()),
        *(
            ("public", f"{each.what}: {each.where} ({each.format}; {'verified' if each.verified else 'not verified'})")
            for each in card.public
        ),
        ("recompute", card.recompute),
        ("recipe", card.recipe),
        ("reported in", "; ".join(card.reported) or "no table of the paper by this name"),
        ("bundled", ", ".join(_bundled(card))),
        ("origin", card.origin),
        ("licence", card.licence),
    ]
    indent = " " * 19
    lines = [
        textwrap.fill(f"  {title:<15}  {text}", WIDTH, subsequent_indent=indent, break_on_hyphens=False)
        for title, text in facts
        if text
    ]
    return "\n".join([f"{name}: {card.title} ({card.family})", *lines])


def _summary(name: str, card: Card | None) -> str:
    if name in SYSTEMS.packages:
        return f"{SYSTEMS[name]}, of the installed package {SYSTEMS.packages[name]}"
    if card is None:
        return f"{SYSTEMS[name]}  (no weights bundled)"
    if name not in SYSTEMS:
        return f"{card.summary}  ({' and '.join(card.imports)} come in from elsewhere)"
    weights = f"weights for {', '.join(card.bundled)}" if card.bundled else "no weights bundled"
    return f"{card.summary}  ({weights})"


def _row(name: str, card: Card | None) -> list[str]:
    here = " ".join(card.abilities) if card else ""
    if name in SYSTEMS.packages:
        here = f"plug-in of {SYSTEMS.packages[name]}"
    if card is None:
        return [name, NOTHING, here or NOTHING, "samples scores", NOTHING, NOTHING]
    licence = card.licence.partition(";")[0].removesuffix(" (weights)") if card.bundled else ""
    texts = (card.family, here, " ".join(card.imports), "\n".join(_bundled(card)), licence)
    return [name, *(text or NOTHING for text in texts)]


def _bundled(card: Card) -> list[str]:
    """``["mini cifar10 2.3 MB"]``: size of the model, data set and size of the file of all bundled weights."""
    found = []
    for dataset in card.bundled:
        path = card.path(dataset)
        size = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["size"]
        found.append(f"{size} {dataset} {path.stat().st_size / 1e6:.1f} MB")
    return found
