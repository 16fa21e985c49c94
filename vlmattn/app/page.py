"""The page: controls, and which of them does what. Only :mod:`vlmattn.app.serving` imports this, where Gradio is."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from vlmattn.app import markup
from vlmattn.app.choices import MapChoice, head_choices, layer_choices, methods_of
from vlmattn.app.handlers import Handlers
from vlmattn.app.knobs import MOST_KNOBS, knobs, method_names, presets
from vlmattn.app.looking import COLUMNS, UNITS
from vlmattn.app.models import Models

_HERE = Path(__file__).parent
CSS = (_HERE / "page.css").read_text(encoding="utf-8")
_CLICKS = """
element.addEventListener('click', (event) => {
  const hit = event.target.closest('[data-%(name)s]');
  if (hit) { trigger('click', {%(name)s: hit.dataset.%(name)s}); }
});
"""
_KEEP_FOCUS = """
let last = null;
element.addEventListener('focusin', (event) => { last = event.target.dataset.pick || null; });
watch('value', () => {
  const again = last && element.querySelector('[data-pick="' + last + '"]');
  if (again && document.activeElement === document.body) { again.focus(); }
});
"""
_DOWNLOAD = """
() => setTimeout(() => {
  const found = document.querySelector('#va-file a, a#va-file') || document.querySelector('#va-file');
  if (found) { found.click(); }
}, 200)
"""


def as_it_came(payload: Any) -> tuple[str, str] | None:
    """(path, name) of an uploaded file, or None: what is wrong with it is told by vlmattn, not by Gradio."""
    if payload is None or not payload.path:
        return None
    return payload.path, payload.orig_name or Path(payload.path).name


@dataclass(frozen=True)
class Page:
    """The parts of the page that several events use."""

    state: Any
    alert: Any
    words: Any
    view: Any
    facts: Any
    choice: tuple[Any, ...]

    @property
    def shown(self) -> list[Any]:
        """What an action changes."""
        return [self.state, self.alert, self.words, self.view, self.facts]


def build(models: Models, folder: str | Path | None = None) -> Any:
    """The page as a ``gradio.Blocks``.

    Args:
        models: of which the first is loaded. folder: for files to download; default: a new temporary one.
    """
    handlers = Handlers(models, Path(folder or tempfile.mkdtemp(prefix="vlmattn-app-")))
    with gr.Blocks(title="vlmattn", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as page:
        state = gr.State(None)
        gr.HTML('<header class="va-title"><h1>vlmattn</h1><p>where a vision-language model looks</p></header>')
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                model = gr.Dropdown(
                    list(models.names), value=models.names[0], label="Model", visible=len(models.names) > 1
                )
                picture = gr.Image(
                    label="Picture", sources=["upload", "clipboard"], height=280, elem_id="va-picture", buttons=[]
                )
                # Not a subclass: Gradio would write a stub beside this file.
                picture.preprocess = as_it_came
                question = gr.Textbox(label="Question", lines=2, max_lines=6, elem_id="va-question")
                ask = gr.Button("Ask", variant="primary", elem_id="va-ask")
                examples = gr.HTML(markup.gallery(), js_on_load=_CLICKS % {"name": "example"}, elem_id="va-examples")
            with gr.Column(scale=8, min_width=320):
                alert = gr.HTML(markup.alert(""), elem_id="va-alert")
                words = gr.HTML(
                    "", js_on_load=_CLICKS % {"name": "pick"} + _KEEP_FOCUS, elem_id="va-words", min_height=20
                )
                view = gr.HTML(markup.WELCOME, elem_id="va-view", min_height=200)
                facts = gr.HTML("", elem_id="va-facts")
                with gr.Tabs(elem_id="va-tabs"):
                    with gr.Tab("Map"):
                        choice = _map_controls(models)
                    p = Page(state, alert, words, view, facts, choice)
                    with gr.Tab("Steering"):
                        steer_on, steering = _steering_controls()
                    with gr.Tab("Second look"):
                        _second_look(p, handlers)
                    with gr.Tab("Check"):
                        _check(p, handlers)
                    with gr.Tab("Gaze"):
                        _gaze(p, handlers)
                    with gr.Tab("Download"):
                        _downloads(p, handlers)
        _wire(p, handlers, model, picture, question, ask, examples, steer_on, steering)
    return page


def _map_controls(models: Models) -> tuple[Any, ...]:
    from vlmattn.maps import NORMALISATIONS

    plain = MapChoice()
    with gr.Row():
        method = gr.Dropdown(list(methods_of()), value=plain.method, label="Method", elem_id="va-method")
        layers = gr.Dropdown(
            layer_choices(), value="", label="Layers", info="a preset, or numbers: 4-8 or 1,3,-1",
            allow_custom_value=True, elem_id="va-layers",
        )  # fmt: skip
        heads = gr.Dropdown(
            head_choices(models.get()), value="", label="Heads", info="a preset, or numbers",
            allow_custom_value=True, elem_id="va-heads",
        )  # fmt: skip
    with gr.Row():
        how = [(f"{name}: {told}", name) for name, (told, _) in NORMALISATIONS.items()]
        normalise = gr.Dropdown(how, value=plain.normalise, label="Normalisation", elem_id="va-normalise")
        sinks = gr.Radio(["keep", "drop", "only"], value=plain.sinks, label="Visual sinks", elem_id="va-sinks")
        opacity = gr.Slider(0, 1, value=plain.opacity, step=0.05, label="Opacity", elem_id="va-opacity")
    with gr.Row():
        box = gr.Checkbox(plain.box, label="Box round the strongest region", elem_id="va-box")
        peak = gr.Checkbox(plain.peak, label="Mark the peak", elem_id="va-peak")
        marks = gr.Checkbox(plain.mark_sinks, label="Mark visual sinks", elem_id="va-mark-sinks")
    return method, layers, heads, normalise, sinks, opacity, box, peak, marks


def _steering_controls() -> tuple[Any, list[Any]]:
    first = method_names()[0]
    on = gr.Checkbox(False, label="Answer under steering too, side by side", elem_id="va-steer")
    with gr.Row():
        method = gr.Dropdown(list(method_names()), value=first, label="Method", elem_id="va-steer-method")
        preset = gr.Dropdown(
            _preset_choices(first), value="", label="Settings", info="published, or your own numbers below"
        )
    with gr.Row():
        numbers = [gr.Number(**_knob(first, n), elem_id=f"va-knob-{n}", min_width=100) for n in range(MOST_KNOBS)]
    more = gr.Textbox(label="Further settings", placeholder="layers=2 3, heads=1.4 2.5", elem_id="va-steer-more")
    again = gr.Button("Answer under these settings", elem_id="va-steer-again")

    def chosen(name: str) -> list[Any]:
        return [gr.update(choices=_preset_choices(name), value=""), *(gr.update(**_knob(name, n)) for n in range(4))]

    def told(text: str) -> list[Any]:
        return [gr.update(interactive=not text) for _ in range(MOST_KNOBS + 1)]

    method.change(chosen, method, [preset, *numbers], api_visibility="private", show_progress="hidden")
    preset.change(told, preset, [*numbers, more], api_visibility="private", show_progress="hidden")
    return on, [method, preset, more, *numbers, again]


def _preset_choices(method: str) -> list[tuple[str, str]]:
    return [("own numbers", ""), *((f"preset {name}", name) for name in presets(method))]


def _knob(method: str, number: int) -> dict[str, Any]:
    there = knobs(method)
    if number >= len(there):
        return {"visible": False, "label": "", "value": None}
    one = there[number]
    return {"visible": True, "label": one.name, "value": one.default, "precision": 0 if one.whole else None}


def _second_look(p: Page, handlers: Handlers) -> None:
    from vlmattn.refine import RECIPES

    names = [(f"{r.name}: {r.note or r.source}", r.name) for r in RECIPES.values()]
    recipe = gr.Dropdown(names, value="peak", label="Recipe", info="where to look closer, and how it is shown")
    with gr.Row():
        look = gr.Button("Look again and answer", elem_id="va-refine")
        drop = gr.Button("Take the second look away", elem_id="va-unrefine")
    _action(p, look.click, handlers.refine, [recipe])
    _action(p, drop.click, handlers.unrefine, [])


def _check(p: Page, handlers: Handlers) -> None:
    gr.Markdown(
        "How likely is each word of the answer made up? By the model's detector where it has one, else by a deletion "
        "test: the picture is covered where the word looks, and elsewhere. It takes six more pictures per word."
    )
    button = gr.Button("Check the words of the answer", elem_id="va-check")
    _action(p, button.click, handlers.check, [])


def _gaze(p: Page, handlers: Handlers) -> None:
    with gr.Row():
        subjects = gr.Slider(1, 8, value=2, step=1, label="Synthetic observers (drawn examples only)")
        drawn = gr.Button("Draw synthetic observers", elem_id="va-synthetic")
    table = gr.File(
        label="Fixation table (CSV or TSV, one row per fixation)", file_types=[".csv", ".tsv"], elem_id="va-table"
    )
    with gr.Row():
        columns = [gr.Dropdown([""], value="", label=f"Column of {name}", min_width=120) for name in COLUMNS]
    with gr.Row():
        unit = gr.Radio(list(UNITS), value="seconds", label="Durations are in")
        named = gr.Textbox(label="The picture's name in the table", placeholder="as the uploaded file")
    with gr.Row():
        show = gr.Button("Draw the table's fixations", elem_id="va-gaze")
        none = gr.Button("Take the fixations away", elem_id="va-no-gaze")
    table.upload(handlers.header, table, [p.alert, *columns], api_visibility="private", show_progress="hidden")
    _action(p, drawn.click, handlers.synthetic, [subjects])
    _action(p, show.click, handlers.table, [table, unit, named, *columns])
    _action(p, none.click, handlers.no_gaze, [])


def _downloads(p: Page, handlers: Handlers) -> None:
    with gr.Row():
        overlay = gr.Button("Overlay (PNG)", elem_id="va-get-overlay")
        numbers = gr.Button("Numbers (JSON)", elem_id="va-get-numbers")
        report = gr.Button("Report (HTML)", elem_id="va-get-report")
    file = gr.DownloadButton("Download", elem_id="va-file", visible="hidden")
    for button, make in ((overlay, handlers.overlay), (numbers, handlers.numbers), (report, handlers.report)):
        made = button.click(
            make, [p.state, *p.choice], [p.alert, file], api_visibility="private", concurrency_id="model",
            concurrency_limit=1, show_progress_on=p.facts,
        )  # fmt: skip
        made.success(None, None, None, js=_DOWNLOAD, api_visibility="private")


def _action(p: Page, event: Any, handler: Any, inputs: list[Any]) -> Any:
    """An event at the model: one at a time, in the order in which they came."""
    return event(
        handler, [p.state, *p.choice, *inputs], p.shown, api_visibility="private", concurrency_id="model",
        concurrency_limit=1, show_progress_on=p.view,
    )  # fmt: skip


def _wire(
    p: Page, handlers: Handlers, model: Any, picture: Any, question: Any, ask: Any, examples: Any, on: Any,
    steering: list[Any],
) -> None:  # fmt: skip
    *settings, steer_again = steering
    asked = [model, picture, question, on, *settings]
    for event in (ask.click, question.submit):
        _action(p, event, handlers.ask, asked).then(
            handlers.methods, [p.state, p.choice[0]], p.choice[0], api_visibility="private", show_progress="hidden"
        )
    _action(p, p.words.click, handlers.pick, [])
    _action(p, on.input, handlers.steer, [on, *settings])
    _action(p, steer_again.click, handlers.steer_again, settings).then(
        lambda state: gr.update(value=state is not None and state.steered is not None), p.state, on,
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    method, layers, heads, *others = p.choice
    method.input(
        handlers.fitting, [method, layers, heads], [layers, heads], api_visibility="private", show_progress="hidden"
    ).then(
        handlers.show, [p.state, *p.choice], p.shown, api_visibility="private", concurrency_id="model",
        concurrency_limit=1, show_progress_on=p.view,
    )  # fmt: skip
    for control in (layers, heads, *others):
        event = control.release if isinstance(control, gr.Slider) else control.input
        _action(p, event, handlers.show, [])
    picture.upload(handlers.read, picture, [p.alert, picture], api_visibility="private", show_progress="hidden")
    examples.click(handlers.example, None, [picture, question], api_visibility="private", show_progress="hidden")
    model.input(
        handlers.model, model, [p.alert, heads], api_visibility="private", concurrency_id="model", concurrency_limit=1
    )
