"""A board as text for a terminal, Markdown, LaTeX or CSV: one file per format."""

from leaderboards.render.latex import to_latex
from leaderboards.render.markdown import to_markdown
from leaderboards.render.terminal import to_text
from leaderboards.render.tidy import to_csv

__all__ = ["to_csv", "to_latex", "to_markdown", "to_text"]
