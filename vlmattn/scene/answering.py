"""Answers of a model to questions about pictures, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmattn.scene.box import scene_model_folder
from vlmattn.scene.evaluation import Answerer


def answerer(folder: str | Path | None = None, *, max_new_tokens: int = 64) -> Answerer:
    """Greedy answers of the model in a folder, in float32; without a folder, of the model in the box.

    Args:
        folder: as ``from_pretrained`` takes it; never fetched. max_new_tokens: longest answer.

    Example:
        >>> from vlmattn.scene import make_scene
        >>> len(answerer()([make_scene(0).image], ["How many objects are there?"]))
        1
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    place = str(folder if folder is not None else scene_model_folder())
    model = AutoModelForImageTextToText.from_pretrained(place, dtype=torch.float32, local_files_only=True).eval()
    return answers_of(model, AutoProcessor.from_pretrained(place, local_files_only=True), max_new_tokens=max_new_tokens)


def answers_of(model: Any, processor: Any, *, max_new_tokens: int = 64) -> Answerer:
    """Greedy answers of a model that is already there; surrounding space is dropped."""
    import torch

    def answer(images: list[Any], questions: list[str]) -> Sequence[str]:
        texts = [processor.apply_chat_template(message(q), add_generation_prompt=True) for q in questions]
        inputs = processor(images=images, text=texts, return_tensors="pt", padding=True)
        with torch.inference_mode():
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
        told = processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in told]

    return answer


def message(question: str) -> list[dict[str, Any]]:
    """One turn of a user about one picture, as chat templates take it."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
