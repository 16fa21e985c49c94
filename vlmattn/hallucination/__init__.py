"""Hallucination: benchmarks and their scorers."""

from __future__ import annotations

from vlmattn.hallucination.benchmark import Benchmark, Item, Score, check_answers

__all__ = ["Benchmark", "Item", "Score", "check_answers"]
