"""Results of a capture as plain arrays, and the words they belong to."""

from __future__ import annotations

from vlmattn.core.words import Span
from vlmattn.trace.tower import TowerTrace, tower_trace_from_kept
from vlmattn.trace.trace import Hidden, TokenScores, Trace, trace_from_kept

__all__ = ["Hidden", "Span", "TokenScores", "TowerTrace", "Trace", "tower_trace_from_kept", "trace_from_kept"]
