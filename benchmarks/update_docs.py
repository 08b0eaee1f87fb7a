"""Copy measured output into the documentation: no number in it is typed by hand.

python benchmarks/update_docs.py results                         # folder of finished suites of `benchmark.py`
python benchmarks/update_docs.py results --seeds results-seeds --selections runs/*/*.selection.json   # and the trained seeds
python benchmarks/update_docs.py --text docs/measured.md:langevin=langevin.txt          # what another script here printed
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from vaebm.cli import named, parse, run
from vaebm.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
SHOWN = {
    "ood": "",
    "generation": "features, measured",
    "modes": "Table 5",
}  # suite -> title of the table on the first page


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the marked places of README.md, TRAINING.md and docs/measured.md."""
    options = ArgumentParser(prog="update_docs.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("results", type=Path, nargs="?", help="folder of a finished run of the bundled systems")
    options.add_argument("--text", type=str, action="append", default=[], metavar="PAGE:MARK=FILE", help="printed text")
    options.add_argument("--seeds", type=Path, default=None, help="folder of a finished run of the trained seeds")
    options.add_argument(
        "--selections", type=Path, nargs="*", default=[], help="what the selection rule wrote, one file per seed"
    )
    given = parse(options, arguments)
    for place, path in named("--text", given.text).items():
        page, _, mark = place.partition(":")
        fill(ROOT / page, mark, Path(path).read_text().strip())
    if given.results is not None:
        suites = [suite for suite in SHOWN if (given.results / f"{suite}.json").is_file()]
        if not suites:
            raise UserError(f"{given.results}: found no results of {', '.join(SHOWN)}")
        for suite in suites:
            tables, made = read(given.results, suite)
            fill(ROOT / "README.md", suite, f"{rows_of(tables, SHOWN[suite])}\n\n{made}")
            fill(ROOT / "docs" / "measured.md", suite, f"{made}\n\n{tables}")
        fill(ROOT / "TRAINING.md", "bundled", bundled_table())
    if given.seeds is not None:
        tables, made = read(given.seeds, "ood")
        fill(ROOT / "TRAINING.md", "seeds", f"{rows_of(tables)}\n\n{made}")
    if given.selections:
        fill(ROOT / "TRAINING.md", "selection", selection_table(given.selections))
    return 0


def selection_table(files: Sequence[Path]) -> str:
    """One row per seed: the update that was kept and the distance at every number of steps, the chosen one in bold."""
    choices = [json.loads(path.read_text()) for path in files]
    ladder = [candidate["steps"] for candidate in choices[0]["candidates"]]
    lines = [
        "| seed | update kept | " + " | ".join(f"{steps} steps" for steps in ladder) + " |",
        "|---" * (len(ladder) + 2) + "|",
    ]
    for choice in sorted(choices, key=lambda choice: choice["seed"]):
        cells = [
            f"**{c['distance']}**" if c["steps"] == choice["steps"] else str(c["distance"])
            for c in choice["candidates"]
        ]
        lines.append(f"| {choice['seed']} | {choice['update']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def read(folder: Path, suite: str) -> tuple[str, str]:
    """Return a run's tables as Markdown, and a sentence on how they were made."""
    try:
        tables, record = (folder / f"{suite}.md").read_text(), json.loads((folder / f"{suite}.json").read_text())
    except OSError as error:
        raise UserError(f"{folder}: not the results of a finished run ({error.strerror})") from None
    # The folder of the data says nothing about the numbers.
    command = re.sub(r" --(?:data-root|out|cache) \S+", "", record["command"])
    machine = f"{record['machine']}, torch {record['packages']['torch']}"
    return tables, f"Made by `{command}` in {record['seconds']:.0f} s ({machine}, in part from the cache)."


def rows_of(tables: str, title: str = "") -> str:
    """The rows of the first table with these words in its title, without its notes."""
    found = next((table for table in tables.split("### ") if table.strip() and title in table.splitlines()[0]), "")
    return "\n".join(line for line in found.splitlines() if line.startswith("|"))


def bundled_table() -> str:
    """One row per bundled checkpoint, from its card."""
    lines = [
        "| checkpoint | command | update | minutes | last logged | held-out training images |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted((ROOT / "baselines" / "checkpoints").glob("*.json")):
        training = json.loads(path.read_text())["training"]
        show = lambda values: ", ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items() if k != "step"
        )
        stage = training.get("ebm", training.get("vae", {}))  # the toy's cards hold the settings, not the last update
        update = training.get("update", training.get("updates", stage.get("steps")))
        cells = (path.stem, f"`{training['command']}`", update, training["minutes"], show(training.get("final", {})))
        lines.append("| " + " | ".join(map(str, cells)) + f" | {show(training.get('validation', {}))} |")
    return "\n".join(lines)


def fill(path: Path, mark: str, content: str) -> None:
    """Replace what stands between ``<!-- mark:begin -->`` and ``<!-- mark:end -->``."""
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    text = path.read_text()
    if begin not in text or end not in text:
        raise UserError(f"{path.name}: the marks {begin} and {end} are not there")
    before, after = text[: text.index(begin)], text[text.index(end) :]
    path.write_text(f"{before}{begin}\n{content}\n{after}")


if __name__ == "__main__":
    raise SystemExit(run(main))
