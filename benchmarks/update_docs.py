"""Fill the numbers of the documentation from the files of docs/results/: none of them is typed.

python benchmarks/update_docs.py                        # fill every mark of README.md, TRAINING.md and docs/*.md
python benchmarks/update_docs.py --check                # exit code 1 where a page differs, naming page and mark
python benchmarks/update_docs.py --take results         # first store the result files and plots of a finished run
python benchmarks/update_docs.py --take langevin=out.txt --selections runs/*/*.selection.json    # and what was printed

A mark is a comment, which GitHub does not show:

    <!-- ood/ood:begin --> ... <!-- ood/ood:end -->        a table
    <!-- v:ood/vaebm/svhn/auroc -->0.74<!-- /v -->         a number in a sentence
    <!-- holds: ood/vaebm/svhn/auroc > 0.5 -->             what a sentence claims: no number, but reported once it is wrong

What marks can name: addresses.py.
"""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from addresses import Sources
from jsonargparse import ArgumentParser

from evaluators.result_file import find_results, read_results, write_results
from leaderboards.files import write_all
from vaebm.cli import parse, run
from vaebm.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
TAKE = "store first: a folder of results with its plots, a result file, or printed text; under another name with NAME="
PLACES = ("--out", "--cache", "--data-root")  # of a command: they say nothing about its numbers

BLOCK = re.compile(r"<!-- (?P<what>[^:<>\n]+):begin -->(?P<text>.*?)<!-- (?P=what):end -->", re.DOTALL)
VALUE = re.compile(r"<!-- v:(?P<what>[^\n]+?) -->(?P<text>[^\n]*?)<!-- /v -->")
CLAIM = re.compile(r"<!-- holds: (?P<what>[^\n]+?) -->")
ANY_MARK = re.compile(r"<!-- (?:v:|/v\b|holds\b|[^<>\n]+:(?:begin|end)\b)[^\n]*?-->")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill or check the pages; return the exit code."""
    options = ArgumentParser(prog="update_docs.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("--check", action="store_true", help="change nothing; exit code 1 where a page differs")
    options.add_argument("--take", type=str, nargs="+", default=[], metavar="NAME=PATH", help=TAKE)
    options.add_argument(
        "--selections", type=Path, nargs="+", default=[], help="what the selection rule wrote, by seed"
    )
    given = parse(options, arguments)
    if given.check and (given.take or given.selections):
        raise UserError("--check: changes nothing; needed it without --take and --selections")
    contents = {path: content for place in given.take for path, content in taken(place).items()}
    if given.selections:
        contents[stored("selection.txt")] = f"{selection_table(given.selections)}\n".encode()
    write_all(contents)
    sources = Sources(ROOT)
    paths = [ROOT / "README.md", ROOT / "TRAINING.md", *sorted((ROOT / "docs").glob("*.md"))]
    pages = {path: fill(path.read_text(encoding="utf-8"), path.name, sources) for path in paths}
    problems = [claim for page in pages.values() for claim in page.wrong]
    if given.check:
        problems += [change for page in pages.values() for change in page.changes]
    else:
        write_all({path: page.text.encode() for path, page in pages.items() if page.changes})
    print("\n".join(problems) or "every number is that of its file")
    return 1 if problems else 0


@dataclass(frozen=True)
class Filled:
    """A page with its marks filled; what that changed; and the claims that the numbers contradict."""

    text: str
    changes: list[str]
    wrong: list[str]


def fill(text: str, page: str, sources: Sources) -> Filled:
    """Fill the marks of a page.

    Raises:
        UserError: a mark names what is not there, or lacks its other half; the message names page and mark.
    """
    changes, wrong = [], []

    def block(match: re.Match[str]) -> str:
        what, new = match["what"], f"\n{sources.table(match['what'])}\n"
        if match["text"] != new:
            changes.append(f"{page}: {what}:begin: differs from what docs/results gives")
        return f"<!-- {what}:begin -->{new}<!-- {what}:end -->"

    def value(match: re.Match[str]) -> str:
        what, new = match["what"], sources.number(match["what"]).text
        if match["text"] != new:
            changes.append(f"{page}: v:{what}: found {match['text']}, docs/results gives {new}")
        return f"<!-- v:{what} -->{new}<!-- /v -->"

    def claim(match: re.Match[str]) -> str:
        first, *others = re.split(r"\s([<>])\s", match["what"])
        if not others:
            raise UserError(f"holds: {match['what']}: needed NUMBER > NUMBER or NUMBER < NUMBER")
        values = [sources.number(what).value for what in (first, *others[1::2])]
        pairs = zip(values, others[::2], values[1:], strict=False)
        if not all(a > b if sign == ">" else a < b for a, sign, b in pairs):
            found = ", ".join(f"{number:.4g}" for number in values)
            wrong.append(f"{page}: holds: {match['what']}: no longer true ({found}); mend the sentence")
        return match[0]

    try:
        if stray := ANY_MARK.search(CLAIM.sub("", VALUE.sub("", BLOCK.sub("", text)))):
            raise UserError(f"{stray[0]}: found no other half of this mark on its page, of a number on its line")
        if stray := re.search(r"^\s*(<!-- v:[^\n]+?-->)", text, re.MULTILINE):
            raise UserError(
                f"{stray[1]}: found at the start of a line, which Markdown takes for a block; move a word before it"
            )
        for mark, filled in ((BLOCK, block), (VALUE, value), (CLAIM, claim)):
            text = mark.sub(filled, text)
    except UserError as error:
        raise UserError(f"{page}: {error}") from None
    return Filled(text, changes, wrong)


def taken(given: str) -> dict[Path, bytes]:
    """Return what ``PATH`` or ``NAME=PATH`` puts where: a folder's result files, a result file, or printed text.

    Of a folder, the plots that docs/ shows are taken, too.

    Raises:
        UserError: it cannot be read, was edited, or names places of the machine that made it.
    """
    before, equals, after = given.rpartition("=")
    name, path = (before, Path(after)) if equals and not Path(given).exists() else ("", Path(given))
    if path.is_file() and path.suffix != ".json":
        return {stored(f"{name or path.stem}.txt"): f"{read_text(path).strip()}\n".encode()}
    contents = {stored(f"{name or file.stem}.json"): stored_form(file) for file in find_results([path])}
    plots = {plot: path / plot.name for plot in (ROOT / "docs").glob("*.png")}
    return contents | {plot: source.read_bytes() for plot, source in plots.items() if source.is_file()}


def stored(name: str) -> Path:
    """Return the place of a file that numbers are taken from."""
    return ROOT / "docs" / "results" / name


def stored_form(file: Path) -> bytes:
    """Return a result file with one measurement a line: smaller, and what changes in it are the lines that changed."""
    results = read_results(file)
    with TemporaryDirectory() as folder:
        write_results(replace(results, command=without_places(results.command, file)), Path(folder) / file.name)
        document = json.loads((Path(folder) / file.name).read_text(encoding="utf-8"))
    rows = ",\n".join(json.dumps(row) for row in document.pop("measurements"))
    head = json.dumps(document, indent=1).removesuffix("\n}")
    return f'{head},\n "measurements": [\n{rows}\n ]\n}}\n'.encode()


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        UserError: it is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: found no text; needed a folder of results, a result file, or printed text") from None


def without_places(command: str, file: Path) -> str:
    """Return a command without the options that name folders of a machine.

    Raises:
        UserError: another one does.
    """
    words, kept = iter(shlex.split(command)), []
    for word in words:
        if word in PLACES:
            next(words, None)
        elif word.partition("=")[0] not in PLACES:
            kept.append(word)
    if absolute := [word for word in kept if re.search(r"(?:^|[=,])[/~]", word)]:
        raise UserError(
            f"{file}: its command names {absolute[0]}, a place on one machine; needed a path below the repository"
        )
    return shlex.join(kept)


def selection_table(files: Sequence[Path]) -> str:
    """One row per seed: the update that was kept and the distance at every number of steps, the chosen one in bold.

    Raises:
        UserError: a file is not what the selection rule writes.
    """
    lines = []
    for path in files:
        try:
            choice = json.loads(read_text(path))
            candidates = {entry["steps"]: entry["distance"] for entry in choice["candidates"]}
            best = {**candidates, choice["steps"]: f"**{candidates[choice['steps']]}**"}
            lines.append((choice["seed"], choice["update"], best))
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: needed NAME.selection.json, as `python -m vaebm export` writes it") from None
    ladder = list(lines[0][2])
    if odd := [path for path, (*_, distances) in zip(files, lines, strict=True) if list(distances) != ladder]:
        raise UserError(f"{odd[0]}: found other numbers of steps than in {files[0]}; needed the same")
    row = lambda cells: f"| {' | '.join(map(str, cells))} |"
    head = [row(["seed", "update kept", *(f"{steps} steps" for steps in ladder)]), "|---" * (len(ladder) + 2) + "|"]
    body = [row([seed, update, *best.values()]) for seed, update, best in sorted(lines, key=lambda line: line[0])]
    return "\n".join([*head, *body])


if __name__ == "__main__":
    raise SystemExit(run(main))
