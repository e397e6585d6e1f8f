"""The report of a finished study: `build_report` makes it, `to_html` and `to_markdown` render it. No torch, no database.

`build_external_report` makes that of a study that a program ran.
"""

from service.report.content import Report, Source
from service.report.external import ExternalSource, build_external_report
from service.report.markdown import to_markdown
from service.report.page import to_html
from service.report.story import build_report

__all__ = ["ExternalSource", "Report", "Source", "build_external_report", "build_report", "to_html", "to_markdown"]
