"""Copy measured output into the documentation: no number in it is typed by hand.

python benchmarks/update_docs.py results        # the folder of a finished `benchmark.py --suite ood`
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from vaebm.cli import parse, run
from vaebm.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Put the first table into README.md and all of them into docs/measured.md."""
    options = ArgumentParser(prog="update_docs.py", exit_on_error=False, allow_abbrev=False)
    options.add_argument("results", type=Path, help="folder of a finished run")
    folder = parse(options, arguments).results
    try:
        tables, record = (folder / "ood.md").read_text(), json.loads((folder / "ood.json").read_text())
    except OSError as error:
        raise UserError(f"{folder}: not the results of a finished run ({error.strerror})") from None
    table = "\n".join(line for line in tables.split("\n### ")[0].splitlines() if line.startswith("|"))
    readme = ROOT / "README.md"
    text = readme.read_text()
    readme.write_text(
        re.sub(
            r"<!-- ood:begin -->.*<!-- ood:end -->",
            lambda _: f"<!-- ood:begin -->\n{table}\n<!-- ood:end -->",
            text,
            flags=re.DOTALL,
        )
    )
    made = f"Made by `{record['command']}` in {record['seconds']} s ({record['machine']}, torch {record['packages']['torch']})."
    measured = ROOT / "docs" / "measured.md"
    rest = measured.read_text() if measured.exists() else ""
    others = rest[rest.index("<!-- others -->") :] if "<!-- others -->" in rest else "<!-- others -->\n"
    measured.write_text(f"# Measured\n\n{made}\n\n{tables}\n{others}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
