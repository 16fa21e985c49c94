"""``vlmattn refine``."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmattn.cli.choices import check_question, choice, own_knobs, read_pictures
from vlmattn.cli.options import (
    Device,
    Dtype,
    Heads,
    Image,
    Json,
    Kernel,
    Layers,
    MaxNewTokens,
    Model,
    Question,
    Quiet,
    Revision,
    System,
    load_model,
    print_json,
)
from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.api import Run, Vlm

_CHOSEN = "peak"
_OPTIONS = ("heads", "layers", "pictures", "share", "window_px", "window_share")


def refine(
    image: Image,
    question: Question,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe", "-r",
            help="carve, carve-code, carve-paper, carve-crop, vicrop, vicrop-gradient, vicrop-pure-gradient, peak, "
            "mask, blur, fade; or a search: zoom, vstar, zoomeye.",
        ),
    ] = _CHOSEN,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="Folder for map, mask, crop, boxes and a sheet of both looks side by side."),
    ] = None,
    pictures: Annotated[
        str | None, typer.Option(help="Show 'both' the second time, or the 'crop' alone; default: the recipe's.")
    ] = None,
    share: Annotated[float | None, typer.Option(help="Of the picture that the mask holds, above 0 to 1.")] = None,
    window: Annotated[
        float | None, typer.Option(help="Side of the window: pixels, or up to 1 a share of the longer side.")
    ] = None,
    when: Annotated[str, typer.Option(help="'always', or 'uncertain': only where the gate says so.")] = "always",
    gate: Annotated[str | None, typer.Option(help="JSON file of a fitted gate; goes with --when uncertain.")] = None,
    choose: Annotated[str, typer.Option(help="'second' answer, or the 'surer' of both.")] = "second",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE",
            help="Any other field of the recipe or the search, such as steps=last, floor=0.3, ratios=[1,1.5], "
            "most_looks=4; may be given several times.",
        ),
    ] = None,
    model: Model = "scene",
    layers: Layers = None,
    heads: Heads = None,
    system: System = None,
    max_new_tokens: MaxNewTokens = 64,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    attention: Kernel = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Look again where the model looked, and ask once more: CARVE, ViCrop, masks, crops and visual searches."""
    from vlmattn.core.files import check_can_hold

    read = choice("raw", layers, heads)
    changes = _changes(pictures, share, window, read.layers, read.heads) | _fields(set_ or [])
    options = _checked(recipe, changes, when, gate, choose)
    check_question(question, 1, None, system)
    _check_still(image)
    if out is not None:
        check_can_hold(out)
    shown = read_pictures([image])
    vlm = load_model(model, device, dtype, revision, attention)
    read.spec(vlm)  # layers and heads that do not exist are told before anything runs
    if options is not None:
        _check_room(vlm, recipe, changes)
    with own_knobs():
        run = vlm.ask(shown, question, system=system, max_new_tokens=max_new_tokens)
    if options is None:
        record, lines = _search(run, recipe, changes, out)
    else:
        record, lines = _look_again(run, recipe, options | changes, choose, out)
    if json:
        print_json(record)
    elif not quiet:
        typer.echo("\n".join(lines))


def _changes(
    pictures: str | None, share: float | None, window: float | None, layers: Any, heads: Any
) -> dict[str, Any]:
    given: dict[str, Any] = {"pictures": pictures, "share": share, "layers": layers, "heads": heads}
    if window is not None:
        if not (isfinite(window) and (window <= 1 or window == round(window))):
            raise SpecError(f"--window must be a whole number of pixels, or a share up to 1; got {window}")
        given |= {"window_share": window} if window <= 1 else {"window_px": round(window)}
    return {name: value for name, value in given.items() if value is not None}


def _fields(given: list[str]) -> dict[str, Any]:
    """``["floor=0.3", "steps=last"]`` as {"floor": 0.3, "steps": "last"}; values are JSON where they can be.

    Raises:
        SpecError: no equals sign, or a field that has an option of its own or is said twice.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise SpecError(f"--set takes FIELD=VALUE, such as steps=last; got {text!r}")
        if name.strip() in (*_OPTIONS, *found):
            raise SpecError(f"--set {text}: {name.strip()} has an option of its own, or is given twice")
        found[name.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    from json import JSONDecodeError, loads

    try:
        found = loads(text)
    except JSONDecodeError:
        return text
    return tuple(found) if isinstance(found, list) else found


def _check_still(image: str) -> None:
    from vlmattn.core.videos import is_video

    if is_video(image):
        raise SpecError(f"{image} is a video, and refine looks at pictures: give a single frame as a picture")


def _check_room(vlm: Vlm, recipe: str, changes: dict[str, Any]) -> None:
    from vlmattn.api.refinement import check_room
    from vlmattn.refine import RECIPES

    check_room(vlm, RECIPES[recipe].but(**changes), 1)


def _checked(recipe: str, changes: dict[str, Any], when: str, gate: str | None, choose: str) -> dict[str, Any] | None:
    """The options of ``run.refine``; None for a search.

    Raises:
        SpecError: a recipe, value or combination that cannot be. FileError: the gate's file.
    """
    from vlmattn.refine import RECIPES, SEARCHES, Gate

    if recipe in SEARCHES:
        wrong = [name for name in changes if name in ("pictures", "share", "window_share", "window_px")]
        if wrong or when != "always" or gate is not None or choose != "second":
            raise SpecError(f"{recipe!r} is a search, which takes --layers, --heads and --set of these options only")
        SEARCHES[recipe].but(**{name: value for name, value in changes.items() if name not in ("layers", "heads")})
        return None
    if recipe not in RECIPES:
        raise SpecError(f"--recipe {recipe!r} does not exist; there are {', '.join((*RECIPES, *SEARCHES))}")
    RECIPES[recipe].but(**changes)
    for name, value, known in (("--when", when, ("always", "uncertain")), ("--choose", choose, ("second", "surer"))):
        if value not in known:
            raise SpecError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    if gate is not None and when == "always":
        raise SpecError("--gate goes with --when uncertain")
    return {"when": when, "gate": None if gate is None else Gate.load(gate)}


def _look_again(
    run: Run, recipe: str, options: dict[str, Any], choose: str, out: str | None
) -> tuple[dict[str, Any], list[str]]:
    found = run.refine(recipe, **options)
    answer = found.ask_again(choose=choose).answer
    files = found.save(out) if out is not None and found.looks_again else []
    record = found.to_dict() | {"answer": answer, "files": [str(file) for file in files]}
    if not found.looks_again:
        return record, [answer, "the first look was good enough: the gate asked for no second one"]
    x0, y0, x1, y1 = found.box_xyxy
    lines = [answer, f"first look: {run.answer}", f"looked again at {x0}, {y0} to {x1}, {y1} ({recipe})"]
    return record, lines + [f"wrote {file}" for file in files]


def _search(run: Run, rule: str, changes: dict[str, Any], out: str | None) -> tuple[dict[str, Any], list[str]]:
    found = run.search(rule, **changes)
    files = found.save(out) if out is not None else []
    lines = [found.answer, f"first look: {run.answer}"]
    for visit in found.path.visits[1:]:
        x0, y0, x1, y1 = visit.box_xyxy
        lines.append(f"  {x0}, {y0} to {x1}, {y1}: {visit.seen.held.answer} ({visit.seen.confidence:.2f})")
    record = found.to_dict() | {"files": [str(file) for file in files]}
    return record, lines + [f"wrote {file}" for file in files]
