"""What is seen, as HTML: clickable words, maps with their legends, examples. All text that comes in is escaped here."""

from __future__ import annotations

import base64
import io
import itertools
from functools import cache
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from vlmattn.app.asking import Asked, Picked, Which
from vlmattn.app.examples import examples
from vlmattn.app.showing import TITLES, Panel, View
from vlmattn.core.words import Part, Span, part_span

if TYPE_CHECKING:
    from vlmattn.api import Run

_LARGEST_SHOWN = 1600
_PNG_PIXELS = 600_000
_STOPS = 12
_RISKY = 0.5
_TURNS = itertools.count()
WELCOME = (
    '<div class="va-welcome"><p><strong>Drop a picture, ask, and click the words.</strong></p>'
    "<p>Each word of the question and the answer shows where the model looked for it. "
    "Or take an example on the left.</p></div>"
)


def one_line(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def alert(text: str) -> str:
    """What went wrong; empty for nothing. Each has its own number, so that the same message is told twice."""
    kind = ' class="va-alert"' if text else ""
    return f'<div{kind} role="alert" data-turn="{next(_TURNS)}">{escape(text)}</div>'


# -- words -------------------------------------------------------------------------------------------------------------


def sentences(asked: Asked | None) -> str:
    """Question and answers with every word a button; ``data-pick`` says which."""
    if asked is None:
        return ""
    lines = [_sentence(asked, "plain", "question", "Question")]
    for which in asked.runs:
        name = "Answer" if which == "plain" else TITLES[which].capitalize()
        lines.append(_sentence(asked, which, "answer", name))
    return f'<div class="va-sentences">{"".join(lines)}</div>'


def _sentence(asked: Asked, which: Which, part: Part, name: str) -> str:
    run = asked.runs[which]
    layout = run.trace.layout
    start, _ = part_span(layout, part)
    out, at = "", start
    for number, span in enumerate(run.words(part)):
        out += escape(_between(run, at, span.char_span[0])) + _word(asked, which, part, number, span)
        at = max(at, span.char_span[1])
    out += escape(_between(run, at, max(at, part_span(layout, part)[1]))) if out else "<em>(empty)</em>"
    if part == "answer":
        out += _button(Picked(which, part, None), "all", asked.picked, "va-word va-all", "map of the whole answer")
    return (
        f'<div class="va-line"><span class="va-who">{escape(name)}</span>'
        f'<span class="va-text" dir="auto">{out}</span></div>'
    )


def _between(run: Run, start: int, end: int) -> str:
    """The text between two words without placeholders of pictures."""
    layout, out, at = run.trace.layout, "", start
    for low, high in sorted(layout.placeholders):
        if at <= low and high <= end:
            out, at = out + layout.text[at:low], high
    return out + layout.text[at:end] if end > at else out


def _word(asked: Asked, which: Which, part: Part, number: int, span: Span) -> str:
    if not any(c.isalnum() for c in span.text):
        return escape(span.text)
    risk, kind = _risk_of(asked, which, span), "va-word"
    title = f"map of {span.label}"
    if risk is not None:
        title += f"; risk that nothing supports it: {risk:.2f}"
        kind += " va-risky" if risk >= _RISKY else " va-safe"
    button = _button(Picked(which, part, number), span.text, asked.picked, kind, title)
    return button if risk is None else f'{button}<sub class="va-risk">{risk:.2f}</sub>'


def _risk_of(asked: Asked, which: Which, span: Span) -> float | None:
    if asked.checked is None or which != "plain" or span.part != "answer":
        return None
    found = [one.risk for one in asked.checked.words if one.span.char_span == span.char_span]
    return found[0] if found else None


def _button(pick: Picked, text: str, picked: Picked, kind: str, title: str) -> str:
    pressed = "true" if pick == picked else "false"
    return (
        f'<button type="button" class="{kind}" data-pick="{escape(pick.key)}" aria-pressed="{pressed}" '
        f'title="{escape(title)}">{escape(text)}</button>'
    )


# -- pictures ----------------------------------------------------------------------------------------------------------


def pictures(shown: View | None) -> str:
    """The maps of a view side by side, one legend below."""
    if shown is None:
        return WELCOME
    panels = "".join(_panel(one, len(shown.panels) > 1) for one in shown.panels)
    return f'<div class="va-panels">{panels}</div>{_legend(shown)}'


def _panel(panel: Panel, several: bool) -> str:
    head = ""
    if several:
        head = f'<div class="va-head"><strong>{escape(panel.title)}</strong> <span>{escape(panel.answer)}</span></div>'
    body = ""
    if panel.look is not None and panel.overlay is not None:
        image = panel.overlay.enlarged or panel.overlay.image
        tiny = " va-tiny" if panel.overlay.enlarged is not None else ""
        body = (
            f'<img class="va-map{tiny}" src="{data_uri(image)}" width="{image.width}" height="{image.height}" '
            f'alt="{escape(_described(panel))}">'
        )
    notes = [panel.note] if panel.note else []
    if panel.scores is not None:
        notes.append("against the fixations: " + ", ".join(f"{n.upper()} {_value(v)}" for n, v in panel.scores.items()))
    told = "".join(f'<div class="va-note">{escape(note)}</div>' for note in notes)
    return f'<figure class="va-panel" data-run="{panel.which}">{head}{body}<figcaption>{told}</figcaption></figure>'


def _described(panel: Panel) -> str:
    from vlmattn.core.errors import MapError

    look = panel.look
    if look is None:
        return panel.note
    width, height = look.picture.wh
    try:
        x, y = look.peak_xy
        place = f"highest at x {x:.0f}, y {y:.0f} of {width} by {height} pixels"
    except MapError:
        place = f"flat, over {width} by {height} pixels"
    return f"where the model looked for {look.label!r}: {place}"


def _value(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"


def _legend(shown: View) -> str:
    from vlmattn.overlay.draw import small_print_of
    from vlmattn.overlay.figure import number

    first = next((one for one in shown.panels if one.look is not None), None)
    if first is None or first.look is None:
        return ""
    made = first.look.pixels.provenance
    label = f"map of <strong>{escape(first.look.label)}</strong>: {escape(made.unit)}"
    if shown.scale is None:
        bar = '<div class="va-note">flat map: every seen pixel has the same value, nothing stands out</div>'
    else:
        low, high = shown.scale
        ticks = "".join(f"<span>{escape(number(v))}</span>" for v in (low, (low + high) / 2, high))
        bar = (
            f'<div class="va-bar"><div style="background:{_gradient(shown.choice.opacity)}"></div></div>'
            f'<div class="va-ticks">{ticks}</div>'
        )
    small = escape(small_print_of(made))
    return f'<div class="va-legend"><div>{label}</div>{bar}<div class="va-small">{small}</div></div>'


def _gradient(opacity: float) -> str:
    from vlmattn.overlay.colours import DEFAULT, colour_table
    from vlmattn.overlay.heat import cover_of

    table, cover = colour_table(DEFAULT), cover_of("value", float(opacity))
    steps = [round(255 * n / (_STOPS - 1)) for n in range(_STOPS)]
    stops = (f"rgba({table[s][0]},{table[s][1]},{table[s][2]},{cover[s] / 255:.3f})" for s in steps)
    return f"linear-gradient(to right,{','.join(stops)})"


def data_uri(image: Image.Image) -> str:
    """A picture within the page; large ones are scaled down for showing."""
    largest = max(image.size)
    if largest > _LARGEST_SHOWN:
        size = tuple(max(1, round(side * _LARGEST_SHOWN / largest)) for side in image.size)
        image = image.resize(size, Image.Resampling.LANCZOS)  # type: ignore[arg-type]
    kind = "PNG" if image.width * image.height <= _PNG_PIXELS else "JPEG"
    held = io.BytesIO()
    image.save(held, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(held.getvalue()).decode('ascii')}"


# -- the rest ----------------------------------------------------------------------------------------------------------


def facts(asked: Asked | None) -> str:
    """What was found beside the maps, one line each."""
    if asked is None:
        return ""
    lines = [f"{asked.run.vlm.name}, {asked.picture.name}, {asked.picture.wh[0]} x {asked.picture.wh[1]} pixels"]
    lines += list(asked.picture.notes)
    if asked.checked is not None:
        wrong = ", ".join(asked.checked.unsupported) or "none"
        lines.append(f"words that nothing supports: {wrong} (by {asked.checked.calibration})")
    if asked.sinks is not None:
        count = len(asked.sinks.visual)
        lines.append(f"visual sinks: {count or 'none found'} ({asked.sinks.said()})")
    if asked.refinement is not None and asked.refinement.looks_again:
        box = ", ".join(str(v) for v in asked.refinement.box_xyxy)
        source = asked.refinement.recipe.source
        lines.append(f"second look at ({box}), pixels x0, y0, x1, y1, by {asked.refinement.recipe.name} ({source})")
    if asked.gaze is not None:
        lines.append(asked.gaze.told)
    return '<ul class="va-facts">' + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


@cache
def gallery() -> str:
    """The examples as buttons; ``data-example`` says which."""
    found = []
    for number, one in enumerate(examples()):
        small = one.picture.image.copy()
        small.thumbnail((112, 112))
        told = f"{one.name}: {one.question}"
        found.append(
            f'<button type="button" class="va-example" data-example="{number}" title="{escape(told)}">'
            f'<img src="{data_uri(small)}" alt="{escape(told)}"></button>'
        )
    title = '<div class="va-gallery-title" id="va-gallery-title">Or an example</div>'
    return f'{title}<div class="va-gallery" role="group" aria-labelledby="va-gallery-title">{"".join(found)}</div>'
