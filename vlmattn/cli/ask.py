"""``vlmattn ask`` and ``vlmattn map``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmattn.cli.options import (
    Device,
    Dtype,
    Heads,
    Json,
    Kernel,
    Layers,
    MaxNewTokens,
    Model,
    Quiet,
    Revision,
    layer_choice,
    load_model,
    numbers,
    print_json,
)

if TYPE_CHECKING:
    from vlmattn.api import Look, Run

Image = Annotated[list[Path], typer.Argument(help="One picture, or several (repeat --image for more).")]
Method = Annotated[str, typer.Option(help="raw, value (norm-weighted) or relative (over a generic prompt).")]
Normalise = Annotated[str, typer.Option(help="none, share, uniform, max, minmax, rank.")]
Answer = Annotated[str | None, typer.Option(help="A given answer: nothing is generated, its rows are shown.")]
System = Annotated[str | None, typer.Option(help="System text, for models that have a place for it.")]


def ask(
    image: Annotated[Path, typer.Argument(help="The picture.")],
    question: Annotated[str, typer.Argument(help="The question.")],
    more: Annotated[list[Path] | None, typer.Option("--image", help="Further pictures; repeat.")] = None,
    model: Model = "scene",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for an overlay of every answer word.")] = None,
    method: Method = "raw",
    layers: Layers = None,
    heads: Heads = None,
    answer: Answer = None,
    system: System = None,
    max_new_tokens: MaxNewTokens = 64,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    attention: Kernel = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask about a picture: the answer, and for every word how much of its attention went to the picture and where."""
    pictures = _pictures([image, *(more or [])])
    vlm = load_model(model, device, dtype, revision, attention)
    run = vlm.ask(pictures, question, answer=answer, system=system, max_new_tokens=max_new_tokens)
    files = _write_words(run, out, method, layers, heads) if out is not None else []
    if json:
        print_json(run.to_dict() | {"files": [str(f) for f in files]})
    elif not quiet:
        _print_run(run, files)


def map_command(
    image: Annotated[Path, typer.Argument(help="The picture.")],
    question: Annotated[str, typer.Argument(help="The question.")],
    word: Annotated[
        str | None, typer.Argument(help="A word or phrase of answer or question; default: whole answer.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG, WebP, JPEG, NPZ or JSON.")] = Path("map.png"),
    model: Model = "scene",
    method: Method = "raw",
    layers: Layers = None,
    heads: Heads = None,
    occurrence: Annotated[int | None, typer.Option(help="Which one, if the word occurs more than once.")] = None,
    part: Annotated[str | None, typer.Option(help="Look for the word in 'question' or 'answer' only.")] = None,
    normalise: Normalise = "none",
    answer: Answer = None,
    max_new_tokens: MaxNewTokens = 64,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    attention: Kernel = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw where the model looked for one word, phrase or the whole answer, on the original picture."""
    _check_suffix(out)
    pictures = _pictures([image])
    vlm = load_model(model, device, dtype, revision, attention)
    run = vlm.ask(pictures, question, answer=answer, max_new_tokens=max_new_tokens)
    options: dict[str, Any] = {"part": part, "occurrence": occurrence}
    look = run.map(word, method=method, normalise=normalise, **_choice(layers, heads), **options)
    look.save(out)
    if json:
        print_json(look.to_dict() | {"answer": run.answer, "file": str(out)})
    elif not quiet:
        _print_look(run, look, out)


def _pictures(paths: list[Path]) -> list[Any]:
    # Read before a model is loaded, so that a bad file is told at once.
    from vlmattn.core.images import load_image

    return [load_image(path) for path in paths]


def _choice(layers: str | None, heads: str | None) -> dict[str, Any]:
    chosen = {"layers": layer_choice(layers), "heads": numbers(heads, "--heads")}
    return {name: value for name, value in chosen.items() if value is not None}


def _check_suffix(out: Path) -> None:
    from vlmattn.core.errors import FileError

    known = (".png", ".webp", ".jpg", ".jpeg", ".npz", ".json")
    if out.suffix.lower() not in known:
        raise FileError(f"{out} has no known ending: expected {', '.join(known)}")


def _write_words(run: Run, out: Path, method: str, layers: str | None, heads: str | None) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for number, word in enumerate(w for w in run.words() if any(c.isalnum() for c in w.text)):
        safe = "".join(c if c.isalnum() else "-" for c in word.text)[:40]
        look = run.map(word, method=method, **_choice(layers, heads))
        files.append(look.save(out / f"{number:02d}-{safe}.png"))
    if files:
        files.append(run.map(None, method=method, **_choice(layers, heads)).save(out / "answer.png"))
    return files


def _print_run(run: Run, files: list[Path]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(run.answer or "(the model gave no answer)", markup=False)
    table = Table(box=None, pad_edge=False)
    for name in ("word", "picture", "question", "system", "log p", "peak (x, y)"):
        table.add_column(name, justify="left" if name == "word" else "right")
    for row in run.grounding():
        peak = "flat" if row.peak_xy is None else f"{row.peak_xy[0]:.0f}, {row.peak_xy[1]:.0f}"
        shares = (row.image_share, row.shares["question"], row.shares["bos"] + row.shares["system"])
        table.add_row(row.word, *(f"{s:.0%}" for s in shares), f"{row.log_probability:.2f}", peak)
    console.print(table)
    for file in files:
        console.print(f"wrote {file}", markup=False)


def _print_look(run: Run, look: Look, out: Path) -> None:
    summary = look.to_dict()
    typer.echo(run.answer)
    peak = (
        "flat map"
        if summary["peak_xy"] is None or summary["flat"]
        else "peak at {:.0f}, {:.0f}".format(*summary["peak_xy"])
    )
    typer.echo(f"{look.label}: {peak}; wrote {out}")
