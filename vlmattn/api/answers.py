"""Answers alone: what a model writes, at the cost of plain generation, with nothing kept of how it came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmattn.api.endings import end_tokens, setting, written_answers
from vlmattn.api.writing import searched, searches, steered_settings, steering_in
from vlmattn.core.errors import CaptureError

if TYPE_CHECKING:
    import torch

    from vlmattn.api.request import Request
    from vlmattn.api.vlm import Vlm


@dataclass(frozen=True)
class Written:
    """What was written for one item.

    Attributes:
        text: without special tokens. ids: of the tokens, the end included. ended: whether the model ended it by itself.
    """

    text: str
    ids: tuple[int, ...]
    ended: bool


def answers_of(vlm: Vlm, request: Request) -> list[Written]:
    """The answers to a request, which holds no given ones; steering acts as in :meth:`Vlm.run`, nothing is captured.

    Raises:
        CaptureError: the model's logits are NaN or infinite. Others as :meth:`Vlm.run`.
    """
    from vlmattn.adapters.videos import may_run_together

    pictures = [vlm._pictures(image) for image, _ in request.items]
    alone = searches(request) or not may_run_together(vlm.adapter.spec, pictures)
    if len(request.items) > 1 and alone:
        return [one for number in range(len(request.items)) for one in answers_of(vlm, request.at(number))]
    encoded = vlm.encode(pictures, [question for _, question in request.items], system=request.system)
    request = steering_in(vlm, request)
    for change in request.steering:
        encoded = change.edit_input(encoded)
    with vlm.alone():
        if searches(request):
            ids = searched(vlm, encoded, request)
            text = vlm.adapter.decode_answer(np.array(ids, dtype=np.int64))[0].strip()
            return [Written(text, ids, len(ids) < request.max_new_tokens or ids[-1] in end_tokens(vlm.model, {}))]
        return _written(vlm, encoded, request)


def _written(vlm: Vlm, encoded: Any, request: Request) -> list[Written]:
    import torch

    from vlmattn.api.checks import named_options
    from vlmattn.api.vlm import _seeded
    from vlmattn.capture import Session

    settings = vlm._settings(request)
    finite = _Finite()
    settings["logits_processor"] = [finite, *(settings.get("logits_processor") or ())]
    # Without steering there is nothing to do at the door.
    session = Session(
        vlm.model,
        encoded.layouts,
        None,
        request.steering,
        pad_left=encoded.pad_left,
        max_new_tokens=request.max_new_tokens,
        beams=int(setting(vlm.model, settings, "num_beams") or 1),
    )
    with (
        steered_settings(vlm.model, encoded, request, settings) as steered,
        session,
        torch.no_grad(),
        _seeded(request.seed),
        named_options(request.generate),
    ):
        output = vlm.model.generate(**encoded.inputs, **steered)
    finite.check()
    pairs = zip(encoded.layouts, encoded.pad_left, strict=True)
    prompt = max(pad + layout.answer_start - layout.memory for layout, pad in pairs)
    written = written_answers(vlm.model, vlm.adapter.tokenizer, output.sequences, prompt, settings)
    ends = set(end_tokens(vlm.model, settings).tolist())
    limit = output.sequences.shape[1] - prompt
    return [
        Written(
            vlm.adapter.decode_answer(ids)[0].strip(),
            tuple(ids.tolist()),
            bool(len(ids)) and (int(ids[-1]) in ends or len(ids) < limit),
        )
        for ids in written
    ]


class _Finite:
    """A logits processor that changes nothing and notes whether any line had no finite logit, or a NaN."""

    def __init__(self) -> None:
        self._broken: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        broken = scores.isnan().any() | ~scores.isfinite().any(-1).all()
        self._broken = broken if self._broken is None else self._broken | broken
        return scores

    def check(self) -> None:
        if self._broken is not None and bool(self._broken):
            raise CaptureError(
                "the model's logits are NaN or infinite, so what it wrote means nothing: its weights are damaged, or "
                "its numbers do not fit its type; load with dtype='float32' or 'bfloat16'"
            )
