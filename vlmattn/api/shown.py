"""What notebooks show of runs: the answer's words coloured by what they rest on, the picture, the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from vlmattn.core.errors import VlmattnError
from vlmattn.core.videos import Video
from vlmattn.display import Shaded, bar, beside, columns_of, facts, folded, html_table, image, panel, paragraph, shaded
from vlmattn.display.html import RISKY
from vlmattn.overlay.draw import CAUTION

if TYPE_CHECKING:
    from vlmattn.api.checking import Checked
    from vlmattn.api.detection import DetectedWord, Detection
    from vlmattn.api.grounding import WordGrounding
    from vlmattn.api.look import Look
    from vlmattn.api.refinement import Refinement
    from vlmattn.api.run import Run
    from vlmattn.api.searching import Searched
    from vlmattn.trace import Span

_MOST_WORDS = 80
_MOST_PICTURES = 4


def run_html(run: Run) -> str:
    """Question, answer with its words coloured by what they rest on, the map of the whole answer, and a table of words.

    Nothing runs for it: what the run kept is shown, and what it did not keep is left out.
    """
    words = _grounding(run)
    said = _checked_words(run.checked) if run.checked is not None else _looking_words(run, words)
    colour = {"colour": RISKY} if run.checked is not None else {}
    spoken = shaded(_filled(run, said) or [Shaded(run.answer)], **colour)
    parts = [paragraph(run.question, faint=True), spoken, _legend(run), beside(*_pictures(run))]
    if words:
        parts.append(
            folded(
                f"{len(words)} word{'s' * (len(words) != 1)}",
                html_table(*columns_of([grounding_row(one) for one in words])),
            )
        )
    return panel("", *parts, note=f"{run.trace.provenance.summary()} · {CAUTION}")


def grounding_row(one: WordGrounding) -> dict[str, Any]:
    """A word of :meth:`Run.grounding` as a notebook's table has it; what is not known is left out."""
    row: dict[str, Any] = {"word": one.word, "on the picture": bar(one.image_share)}
    if one.sink_share is not None:
        row["on sinks"] = bar(one.sink_share)
    row["peak"] = None if one.peak_xy is None else f"{one.peak_xy[0]:.0f}, {one.peak_xy[1]:.0f}"
    row["entropy"] = one.entropy
    row["probability"] = math.exp(one.log_probability)
    if one.calibration:
        row["risk"] = bar(one.risk, colour=RISKY)
    if one.threshold:
        row |= {"verdict": one.verdict or "not tested", "chance": one.chance}
    return row


def detection_html(found: Detection) -> str:
    """Objects that the answer names (or its words), their scores, and risk where it is known."""
    title = f"{len(found.objects)} objects" if found.objects else f"{len(found.words)} words"
    rows = [*(found.objects or found.words), *(() if found.about is None else (found.about,))]
    missing = f"not made: {', '.join(found.missing)}" if found.missing else ""
    told = " · ".join(part for part in (found.calibration, "higher: more likely made up", missing) if part)
    return panel(title, html_table(*columns_of([_detected_row(one) for one in rows])), note=told)


def checked_html(found: Checked) -> str:
    """The answer as it is handed out, and the risk of what was checked."""
    rows = [
        {"text": w.text, "risk": bar(w.risk, colour=RISKY), "": "unsupported" if w.unsupported else ""}
        for w in found.words
    ]
    shown = found.answer if found.then == "abstain" else found.marked
    parts = [paragraph(shown), html_table(*columns_of(rows))]
    if found.first is not None:
        parts.insert(0, paragraph(f"first: {found.first.answer}", faint=True))
    return panel(f"checked {found.of}, then: {found.then}", *parts, note=found.calibration)


def refinement_html(made: Refinement) -> str:
    """Where to look again: the map with the box that is cut out, the cut, and both answers where there are two."""
    told: dict[str, Any] = {"question": made.run.question, "first answer": made.run.answer}
    if made.again is not None:
        told["second answer"] = made.again.answer
    if made.signs is not None:
        told["signs of uncertainty"] = made.signs.to_dict()
    if made.refined is None:
        return panel(f"refinement {made.recipe.name}", facts(told | {"second look": "not needed, says the gate"}))
    told |= {"box": list(made.box_xyxy), "of the picture": f"{made.refined.place.share:.0%}"}
    drawn = made.look.overlay(box=made.box_xyxy)
    pictures = [
        image(drawn.enlarged or drawn.image, f"where to look again: box {made.box_xyxy}", width=280),
        image(made.crop, "what is looked at", width=280),
    ]
    return panel(f"refinement {made.recipe.name}", facts(told), beside(*pictures))


def searched_html(found: Searched) -> str:
    """Every look of a search with its answer and how sure it is."""
    rows = [
        (n, ", ".join(f"{edge:.0f}" for edge in visit.box_xyxy), visit.seen.held.answer, bar(visit.seen.confidence))
        for n, visit in enumerate(found.path.visits)
    ]
    told = {"question": found.first.question, "answer": found.answer, "stopped": found.path.stopped}
    return panel(f"search {found.rule.name}", facts(told), html_table(("look", "box", "answer", "certainty"), rows))


# -- parts of a run ----------------------------------------------------------------------------------------------------


def _grounding(run: Run) -> list[WordGrounding]:
    if len(run.words()) > _MOST_WORDS:
        return []
    try:
        return list(run.grounding())
    except VlmattnError:
        return []


def _looking_words(run: Run, words: Sequence[WordGrounding]) -> list[tuple[Span, Shaded]]:
    spans = [word for word in run.words() if any(c.isalnum() for c in word.text)]
    if len(words) != len(spans):
        return []
    return [
        (span, Shaded(span.text, one.image_share, f"{span.label}: {_percent(one.image_share)} on the picture"))
        for span, one in zip(spans, words, strict=True)
    ]


def _checked_words(found: Checked) -> list[tuple[Span, Shaded]]:
    return [
        (one.span, Shaded(one.text, one.risk, f"risk {_percent(one.risk)}", one.unsupported)) for one in found.words
    ]


def _percent(share: float | None) -> str:
    return "not known" if share is None or math.isnan(share) else f"{share:.0%}"


def _filled(run: Run, said: Sequence[tuple[Span, Shaded]]) -> list[Shaded]:
    """The answer in stretches: those that are told of, and what stands between them."""
    from vlmattn.core.words import part_span

    whole = run.trace.layout.text
    at, end = part_span(run.trace.layout, "answer")
    out: list[Shaded] = []
    for span, one in said:
        low, high = span.char_span
        if low >= at:
            out += [Shaded(whole[at:low]), one._replace(text=whole[low:high])]
            at = high
    return [*out, Shaded(whole[at:end])] if out else []


def _legend(run: Run) -> Markup:
    if run.checked is not None:
        return paragraph(f"colour: risk of being made up, none at 0, full at 1; {run.checked.calibration}", faint=True)
    return paragraph("colour: share of a word's attention on the picture, none at 0, full at 1", faint=True)


def _pictures(run: Run) -> list[Markup]:
    """The whole answer's map on every picture, or the plain picture where there is no map."""
    out = [_picture(run, number) for number in range(min(len(run.pictures), _MOST_PICTURES))]
    left = len(run.pictures) - _MOST_PICTURES
    return [*out, paragraph(f"and {left} more pictures", faint=True)] if left > 0 else out


def _picture(run: Run, number: int) -> Markup:
    seen = run.pictures[number]
    try:
        look = run.map(image=number)
    except VlmattnError:
        return image(seen.frames[0].image if isinstance(seen, Video) else seen.image, seen.name)
    return look_image(look, f"{seen.name}: where the model looked for the whole answer")


def look_image(look: Look, alt: str) -> Markup:
    """A map as a picture of a page: on its picture, or on the frames of its video."""
    from vlmattn.api.video_look import VideoLook

    if isinstance(look, VideoLook):
        return image(look.sheet(cell_width=160).image, alt, width=640)
    drawn = look.overlay()
    return image(drawn.enlarged or drawn.image, alt)


def _detected_row(one: DetectedWord) -> dict[str, Any]:
    row: dict[str, Any] = {"text": one.text}
    if one.risk is not None:
        row["risk"] = bar(one.risk, colour=RISKY)
    return row | one.scores
