"""Reports: one HTML file that shows, word by word and layer by layer, where a model looked."""

from __future__ import annotations

from vlmattn.report.from_trace import panel_of
from vlmattn.report.page import report_html, write_report
from vlmattn.report.panel import MapView, MarkedBox, Panel, ReportWord
from vlmattn.report.payload import read_report

__all__ = [
    "MapView",
    "MarkedBox",
    "Panel",
    "ReportWord",
    "panel_of",
    "read_report",
    "report_html",
    "write_report",
]
