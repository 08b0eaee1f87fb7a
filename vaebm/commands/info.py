"""``python -m vaebm info``: what a file is, without running anything in it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from vaebm.cli import parse


def main(arguments: Sequence[str]) -> int:
    """Run the verb; return the exit code."""
    from vaebm.checkpoints.describe import describe

    parser = ArgumentParser(prog="python -m vaebm info", exit_on_error=False, allow_abbrev=False)
    parser.add_argument("file", type=Path, help="checkpoint (native or official), state of a run, .npz or .npy")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parse(parser, arguments)
    facts = describe(options.file)
    print(json.dumps(facts, indent=1) if options.json else "\n".join(_lines(facts)))
    return 0


def _lines(facts: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """One line per fact; a fact with parts is a block of its own."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{name:<{width}}  {_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
