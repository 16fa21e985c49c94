"""Which token is what, and which characters of the prompt it covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmattn.adapters.plan import ImagePlan
from vlmattn.adapters.render import Rendered, spans_of
from vlmattn.core.errors import LayoutError
from vlmattn.core.layout import TokenKind, TokenLayout


def unexpanded(offsets: NDArray[np.int64], replacements: Sequence[Mapping[str, Any]]) -> NDArray[np.int32]:
    """Character offsets in the expanded prompt as offsets in the prompt with one placeholder per picture.

    Args:
        offsets: (N, 2), [start, end) of every token in the expanded text.
        replacements: for each placeholder, its ``span`` in the prompt and ``new_span`` in the expanded text.

    Returns:
        (N, 2) int32; (-1, -1) for tokens without text. Offsets inside an expanded placeholder mean nothing.
    """
    out = offsets.copy()
    for item in replacements:
        grown = item["new_span"][1] - item["span"][1]
        out = np.where(offsets >= item["new_span"][1], offsets - grown, out)
    return np.where((offsets[:, 1] > offsets[:, 0])[:, None], out, -1).astype(np.int32)


def inside(offsets: NDArray[np.int64], replacements: Sequence[Mapping[str, Any]]) -> NDArray[np.int32]:
    """(N,) index of the picture in whose expanded placeholder a token of text lies, else -1; as :func:`unexpanded`."""
    found = np.full(len(offsets), -1, dtype=np.int32)
    for index, item in enumerate(replacements):
        start, end = item["new_span"]
        found[(offsets[:, 0] >= start) & (offsets[:, 1] <= end) & (offsets[:, 1] > offsets[:, 0])] = index
    return found


def check_counts(
    found: int, written: Sequence[int], plans: Sequence[ImagePlan], image_sizes: Sequence[tuple[int, int]]
) -> None:
    """Raises LayoutError unless processor, tokenizer and geometry agree on the number of image tokens.

    Args:
        found: image tokens in ``input_ids``.
        written: image tokens that the processor wrote for each picture.
        plans: what the geometry says of each picture. ``image_sizes``: their (width, height).
    """
    for index, (count, plan, (w, h)) in enumerate(zip(written, plans, image_sizes, strict=True)):
        if count != len(plan):
            raise LayoutError(
                f"{_named(plan, index)} ({w} x {h}): the processor writes {count} image tokens, the model makes"
                f" {len(plan)} (grids {[t.grid_hw for t in plan.layout.tiles]}). Check the processor's patch_size,"
                " vision_feature_select_strategy, num_additional_image_tokens and image size against the model's"
            )
    if found != sum(written):
        raise LayoutError(
            f"the prompt holds {found} image tokens after tokenising, but the processor wrote {sum(written)}"
        )


def counts_written(
    replaced: Sequence[Mapping[str, Any]], order: Sequence[int], kinds: Sequence[str], tokens: Mapping[str, str]
) -> list[int]:
    """How many tokens the processor wrote for each picture and video, in the order in which they were given.

    Args:
        replaced: what was written at each place in the text. order: which of those given stands there. kinds: of each,
            ``image`` or ``video``. tokens: what stands for each kind.
    """
    written = [0] * len(kinds)
    for item, at in zip(replaced, order, strict=True):
        written[at] = item["replacement"].count(tokens[kinds[at]])
    return written


def _named(plan: ImagePlan, index: int) -> str:
    frames = len(plan.layout.times)
    return f"video {index} of {frames} frames" if frames else f"picture {index}"


def token_layout(
    rendered: Rendered,
    ids: NDArray[np.int64],
    char_span: NDArray[np.int32],
    plans: Sequence[ImagePlan],
    *,
    inside: NDArray[np.int32],
    placeholders: Sequence[str],
    image_token_ids: Sequence[int],
    bos_token_id: int | None,
    order: Sequence[int] | None = None,
) -> TokenLayout:
    """The layout of one prompt of N tokens: ``ids`` (N,), ``char_span`` (N, 2) and :func:`inside` (N,).

    Tokens that the processor writes round or between a picture's image tokens are separators of that picture. What it
    appends to the prompt has no characters there. ``order``: which of the plans stands at each place in the text; in
    the order of the plans if it is not given.
    """
    char_span = np.where((char_span[:, 1] > len(rendered.text))[:, None], -1, char_span)
    is_image = np.isin(ids, image_token_ids)
    order = range(len(plans)) if order is None else order
    kinds = np.full(len(ids), TokenKind.SYSTEM, dtype=np.int8)
    start, end = rendered.question_span
    kinds[(char_span[:, 0] >= 0) & (char_span[:, 0] < end) & (char_span[:, 1] > start)] = TokenKind.QUESTION
    first = np.flatnonzero(~is_image & (inside < 0))[:1]  # some processors write it after the pictures
    if bos_token_id is not None and (ids[first] == bos_token_id).any():
        kinds[first] = TokenKind.BOS
    place = np.full((len(ids), 3), -1, dtype=np.int32)
    image = np.full(len(ids), -1, dtype=np.int32)
    if plans:
        place[is_image] = np.concatenate([plans[n].place for n in order])
        image[is_image] = np.repeat(np.asarray(order), [len(plans[n]) for n in order])
    kinds[is_image] = np.where(place[is_image, 0] >= 0, TokenKind.IMAGE, TokenKind.SEPARATOR)
    between = (inside >= 0) & ~is_image
    kinds[between] = TokenKind.SEPARATOR
    image[between] = np.asarray([*order, -1])[inside[between]] if plans else inside[between]
    return TokenLayout(
        text=rendered.text,
        input_ids=ids,
        kinds=kinds,
        image=image,
        tile=place[:, 0].copy(),
        row=place[:, 1].copy(),
        col=place[:, 2].copy(),
        char_span=np.where((is_image | between)[:, None], -1, char_span).astype(np.int32),
        question_span=rendered.question_span,
        answer_start=len(ids),
        images=tuple(p.layout for p in plans),
        placeholders=tuple(sorted(span for slot in placeholders for span in spans_of(rendered.text, slot))),
    )
