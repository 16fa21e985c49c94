"""Where a model looks beside where people look: measured, with baselines, ceilings and intervals."""

from __future__ import annotations

from vlmattn.evaluate.gaze.cases import FREE_VIEWING, GazeCase, read_cases, scene_cases
from vlmattn.evaluate.gaze.comparing import Compared, compare_gaze, read_result
from vlmattn.evaluate.gaze.lookers import ClipLooker, Looked, Looker, VlmLooker
from vlmattn.evaluate.gaze.measuring import CaseResult, CaseRow, Measuring, measure_case
from vlmattn.evaluate.gaze.search import (
    Asymmetry,
    SearchResult,
    neva_searcher,
    saccades_to_target,
    search_asymmetry,
    search_result,
    synthetic_searcher,
)
from vlmattn.evaluate.gaze.sheets import case_sheet
from vlmattn.evaluate.gaze.summary import Depth, Summary, SummaryRow, summarise
from vlmattn.evaluate.gaze.tables import markdown

__all__ = [
    "FREE_VIEWING",
    "Asymmetry",
    "CaseResult",
    "CaseRow",
    "ClipLooker",
    "Compared",
    "Depth",
    "GazeCase",
    "Looked",
    "Looker",
    "Measuring",
    "SearchResult",
    "Summary",
    "SummaryRow",
    "VlmLooker",
    "case_sheet",
    "compare_gaze",
    "markdown",
    "measure_case",
    "neva_searcher",
    "read_cases",
    "read_result",
    "saccades_to_target",
    "scene_cases",
    "search_asymmetry",
    "search_result",
    "summarise",
    "synthetic_searcher",
]
