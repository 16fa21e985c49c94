"""Results of a capture as plain arrays, and the words they belong to."""

from __future__ import annotations

from vlmattn.core.words import Span
from vlmattn.trace.trace import Hidden, TokenScores, Trace, trace_from_kept

__all__ = ["Hidden", "Span", "TokenScores", "Trace", "trace_from_kept"]
