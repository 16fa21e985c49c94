"""Results of a capture as plain arrays, and the words they belong to."""

from __future__ import annotations

from vlmattn.trace.trace import Hidden, TokenScores, Trace, trace_from_kept
from vlmattn.trace.words import Span

__all__ = ["Hidden", "Span", "TokenScores", "Trace", "trace_from_kept"]
