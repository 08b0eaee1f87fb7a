"""LaTeX files: tables to be read with ``\\input``, and a document of them that compiles by itself."""

from collections.abc import Sequence

from leaderboards.board import Board
from leaderboards.render.bibliography import latex_bibliography, used_keys
from leaderboards.render.latex import to_latex, typeset
from leaderboards.render.layout import SHEET
from leaderboards.render.numbers import Style

ORIGIN = "% Written by benchmark.py: change the result files, not this one.\n"
PREAMBLE = r"""
\documentclass[10pt]{article}
\usepackage[utf8]{inputenc}
\usepackage[a4paper,margin=2cm]{geometry}
\usepackage{booktabs,float,longtable,url}
\begin{document}
""".lstrip()


def fragment(boards: Sequence[Board], stem: str, style: Style | None = None) -> str:
    """Return the tables for ``\\input{<stem>}``; the first lines say what the paper's preamble needs."""
    tables = [to_latex(board, style) for board in boards]
    packages = ["booktabs", *(["longtable"] if any(r"\begin{longtable}" in table for table in tables) else [])]
    needs = rf"% Needs \usepackage{{{','.join(packages)}}}"
    needs += rf" and, for \cite, \bibliography{{{stem}}}" if used_keys(boards) else ""
    return f"{ORIGIN}{needs}\n" + "\n".join(tables)


def standalone(boards: Sequence[Board], style: Style | None = None) -> str:
    """Return a document of the tables and the entries they cite; needs no other file.

    Raises:
        UserError: references.bib lacks an entry.
    """
    keys = used_keys(boards)
    tables = "\n".join(typeset(board, style, SHEET) for board in boards)
    cited = "\\clearpage\n" + latex_bibliography(keys) if keys else ""
    runs = "three times" if r"\begin{longtable}" in tables else "twice"
    return f"{ORIGIN}% Run pdflatex {runs}.\n{PREAMBLE}{tables}{cited}\\end{{document}}\n"
