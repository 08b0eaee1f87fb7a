"""A board as text for a terminal, Markdown, LaTeX, CSV or JSON: one file per format."""

from leaderboards.render.document import fragment, standalone
from leaderboards.render.latex import to_latex
from leaderboards.render.markdown import to_markdown
from leaderboards.render.tables_json import to_json
from leaderboards.render.terminal import to_text
from leaderboards.render.tidy import to_csv

__all__ = ["fragment", "standalone", "to_csv", "to_json", "to_latex", "to_markdown", "to_text"]
