"""Configuration and model, known to transformers' Auto classes."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)


class SampleVlmConfig(LlavaConfig):
    """A LLaVA's configuration under another name."""

    model_type = "sample_vlm"


class SampleVlmForConditionalGeneration(LlavaForConditionalGeneration):
    """A LLaVA under another name."""

    config_class = SampleVlmConfig


AutoConfig.register("sample_vlm", SampleVlmConfig)
AutoModelForImageTextToText.register(SampleVlmConfig, SampleVlmForConditionalGeneration)
AutoProcessor.register(SampleVlmConfig, LlavaProcessor)
