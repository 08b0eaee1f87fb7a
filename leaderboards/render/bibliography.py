"""The entries of references.bib that tables cite: as BibTeX, as LaTeX that needs no BibTeX, and as HTML."""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from leaderboards.board import Board
from leaderboards.published import REFERENCES_BIB
from vaebm.errors import UserError, did_you_mean

ARXIV = re.compile(r"\barXiv:(\d{4}\.\d{4,5})\b")


def used_keys(boards: Iterable[Board]) -> list[str]:
    """Return the keys that the rows of tables cite, sorted, each once."""
    return sorted({row.citation for board in boards for block in board.blocks for row in block.rows if row.citation})


def bibtex(keys: Iterable[str]) -> str:
    """Return a BibTeX file of these entries, sorted by key, with all their fields as references.bib has them.

    Raises:
        UserError: references.bib has no such key.
    """
    return _chosen(sorted(set(keys))).to_string("bibtex")


def latex_bibliography(keys: Iterable[str]) -> str:
    """Return a ``thebibliography`` environment in BibTeX's style ``plain``, so that pdflatex alone resolves ``\\cite``.

    Raises:
        UserError: references.bib has no such key.
    """
    import io

    from pybtex.backends.latex import Backend

    out = io.StringIO()
    Backend("utf-8").write_to_stream(_formatted(keys), out)
    return out.getvalue()


def html_references(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Return (key, HTML) of these entries in the order of ``plain``, by author; arXiv numbers are links.

    Raises:
        UserError: references.bib has no such key.
    """
    from pybtex.backends.html import Backend

    backend = Backend("utf-8")
    link = r'<a href="https://arxiv.org/abs/\1">arXiv:\1</a>'
    return [(entry.key, ARXIV.sub(link, entry.text.render(backend))) for entry in _formatted(keys)]


def _formatted(keys: Iterable[str]) -> Any:
    from pybtex.style.formatting.plain import Style

    chosen = _chosen(sorted(set(keys)))
    for entry in chosen.entries.values():
        # The style knows an address by this field and prints the macro elsewhere.
        if address := re.fullmatch(r"\\url\{(.+)\}", entry.fields.get("howpublished", "")):
            del entry.fields["howpublished"]
            entry.fields["url"] = address[1]
    return Style().format_bibliography(chosen)


def _chosen(keys: Iterable[str]) -> Any:
    """Return a pybtex ``BibliographyData`` of these entries, which the caller may change."""
    from pybtex.database import BibliographyData, parse_string

    known = _source()
    for key in keys:
        if key not in known:
            raise UserError(
                f"{REFERENCES_BIB}: no entry with the key {key!r} that a table cites.{did_you_mean(key, known)}"
            )
    return parse_string(BibliographyData({key: known[key] for key in keys}).to_string("bibtex"), "bibtex")


@cache
def _source() -> dict[str, Any]:
    """Return key -> entry of references.bib."""
    from pybtex.database import parse_file
    from pybtex.exceptions import PybtexError

    try:
        return dict(parse_file(str(REFERENCES_BIB), "bibtex").entries)
    except (OSError, PybtexError) as error:
        raise UserError(f"{REFERENCES_BIB}: no readable BibTeX file ({error})") from None
