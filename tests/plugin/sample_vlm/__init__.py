"""A model family of its own: a LLaVA under another name."""

from __future__ import annotations

from sample_vlm.model import SampleVlmConfig, SampleVlmForConditionalGeneration

__all__ = ["SampleVlmConfig", "SampleVlmForConditionalGeneration"]
