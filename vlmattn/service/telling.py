"""From what was found to the answer that is sent: pixels, boxes, drawings; no pass of the model."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any

from vlmattn.core.errors import MapError
from vlmattn.service import schema
from vlmattn.service.errors import Refused

if TYPE_CHECKING:
    from vlmattn.api import Look, WordGrounding
    from vlmattn.service.asking import Found
    from vlmattn.trace import Span

UNSUPPORTED = 0.5
"""The risk from which on a word counts as unsupported, as in :class:`vlmattn.api.checking.Check`."""


def answer_of(found: Found) -> schema.Answer:
    """Everything that is told about one request."""
    run, asked = found.run, found.wanted.asked
    words = [
        _word(span, word, look, why)
        for span, word, look, why in zip(found.spans, found.words, found.looks, found.whys, strict=True)
    ]
    checked = _checked(found)
    return schema.Answer(
        question=run.question,
        answer=run.answer,
        words=words,
        words_left_out=found.left_out,
        calibration=_calibration(found.words) if asked.risk else None,
        warning=_warning(found, words, checked),
        checked=checked,
        overlay=None if found.drawn is None else _overlay(found.drawn, asked),
        refined=_second(found),
        picture=_picture(found),
        read={"method": asked.method, "layers": asked.layers, "heads": asked.heads, "normalise": asked.normalise},
        provenance=run.trace.provenance.to_dict(),
        seconds=schema.Timing(waited=found.waited, ran=found.ran, together=found.together),
    )


def drawing_of(found: Found) -> bytes:
    """The map drawn on the picture, as a file of the kind that was asked for.

    Raises:
        Refused: the model gave no answer, and no word was named. FileError: too large for that kind of file.
    """
    if found.drawn is None:
        raise Refused(422, "no_map", "the model gave no answer, so there is nothing to draw: name overlay_of")
    return _drawn(found.drawn, found.wanted.asked)[0]


def _drawn(look: Look, asked: Any) -> tuple[bytes, tuple[int, int]]:
    from vlmattn.overlay.metadata import encoded

    made = look.overlay()
    image = made.figure if asked.figure else made.image
    return encoded(image, made.record, f".{asked.overlay}"), image.size


def _overlay(look: Look, asked: Any) -> schema.OverlayTold:
    file, (width, height) = _drawn(look, asked)
    text = base64.b64encode(file).decode("ascii")
    kind: Any = f"image/{asked.overlay}"
    return schema.OverlayTold(of=look.label, media_type=kind, width=width, height=height, base64=text)


def _word(span: Span, word: WordGrounding, look: Look | None, why: str | None) -> schema.Word:
    box, peak = None, None
    if look is not None:
        try:
            box, peak = [int(v) for v in look.box_xyxy()], [float(v) for v in look.peak_xy]
        except MapError as error:
            why = str(error)
    risk = word.risk
    if risk is None and word.chance is not None:
        risk = 1 - word.chance
    return schema.Word(
        text=span.text,
        part=span.part,
        occurrence=span.occurrence,
        of=span.of,
        box_xyxy=box,
        peak_xy=peak,
        image_share=_share(word.image_share),
        log_probability=_known(word.log_probability),
        risk=None if risk is None else _share(risk),
        verdict=word.verdict,
        unsupported=None if risk is None else risk >= UNSUPPORTED,
        note=why,
    )


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _share(value: float) -> float | None:
    # Sums of float32 shares may end a rounding above 1.
    return min(max(float(value), 0.0), 1.0) if math.isfinite(value) else None


def _calibration(words: list[WordGrounding]) -> str | None:
    told = dict.fromkeys(
        one.calibration or (f"deletion test, {one.threshold}" if one.threshold else "") for one in words
    )
    return "; ".join(text for text in told if text) or None


def _checked(found: Found) -> schema.CheckTold | None:
    made = found.run.checked
    if made is None:
        return None
    things = [schema.CheckedThing(text=w.text, risk=w.risk, unsupported=w.unsupported) for w in made.words]
    of: Any = made.of
    return schema.CheckTold(marked=made.marked, of=of, words=things, calibration=made.calibration)


def _warning(found: Found, words: list[schema.Word], checked: schema.CheckTold | None) -> str | None:
    if not found.run.answer:
        return "the model gave no answer"
    judged = [(w.text, w.unsupported) for w in (checked.words if checked is not None else ())]
    judged = judged or [(w.text, w.unsupported) for w in words if w.unsupported is not None]
    wrong = list(dict.fromkeys(text for text, unsupported in judged if unsupported))
    if not wrong:
        return None
    if all(unsupported for _, unsupported in judged):
        return "nothing in the picture supports this answer"
    return f"nothing in the picture supports: {', '.join(wrong)}"


def _second(found: Found) -> schema.Second | None:
    from vlmattn.api.refinement import certainty

    if found.second is None:
        return None
    look, again = found.second
    return schema.Second(
        recipe=look.recipe.name,
        box_xyxy=[int(v) for v in look.box_xyxy],
        box_share=_share(look.to_dict()["refined"]["box_share"]) or 0.0,
        answer=again.answer,
        certainty=_share(certainty(again)),
        first_certainty=_share(certainty(found.run)),
    )


def _picture(found: Found) -> schema.Picture:
    picture = found.wanted.picture
    return schema.Picture(width=picture.wh[0], height=picture.wh[1], notes=list(picture.notes))
