"""The report of a finished study: `tell` makes its content, `to_html` and `to_markdown` render it. No torch, no database."""

from service.report.content import Report, Source
from service.report.markdown import to_markdown
from service.report.page import to_html
from service.report.story import tell

__all__ = ["Report", "Source", "tell", "to_html", "to_markdown"]
