"""``vlmattn ask`` and ``vlmattn map``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmattn.cli.choices import (
    Choice,
    check_map_file,
    check_normalisation,
    check_question,
    check_rows,
    check_sinks,
    choice,
    own_knobs,
    read_pictures,
)
from vlmattn.cli.options import (
    Answer,
    Device,
    Dtype,
    Fps,
    Frames,
    Heads,
    Image,
    Json,
    Kernel,
    Layers,
    MaxNewTokens,
    Method,
    Model,
    More,
    Question,
    Quiet,
    Revision,
    Rows,
    Sinks,
    System,
    load_model,
    print_json,
)
from vlmattn.cli.table import table
from vlmattn.core.errors import PromptError, SpecError

if TYPE_CHECKING:
    from vlmattn.api import Look, Run, WordGrounding


def ask(
    image: Image,
    question: Question,
    more: More = None,
    model: Model = "scene",
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Folder for an overlay of every answer word, on every picture.")
    ] = None,
    frames: Frames = None,
    fps: Fps = None,
    method: Method = "raw",
    layers: Layers = None,
    heads: Heads = None,
    ground: Annotated[
        bool,
        typer.Option("--ground", help="Test whether each word rests on what it looks at: six pictures more a word."),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Mark things that nothing supports, by the deletion test or by --detector."),
    ] = False,
    detector: Annotated[str | None, typer.Option(help="File of 'vlmattn detect MODEL --save'.")] = None,
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
    """Ask about a picture or video: the answer, and how much of every word's attention went there, and where."""
    from vlmattn.core.files import check_can_hold

    wanted, paths = choice(method, layers, heads), [image, *(more or [])]
    check_question(question, len(paths), answer, system)
    if detector is not None and not check:
        raise SpecError("--detector is what --check goes by: give both")
    if out is not None:
        check_can_hold(out)
    pictures = read_pictures(paths, frames, fps)
    vlm = load_model(model, device, dtype, revision, attention)
    vlm.use_detector(detector)
    with own_knobs():
        run = vlm.ask(
            pictures,
            question,
            answer=answer,
            system=system,
            max_new_tokens=max_new_tokens,
            capture=wanted.spec(vlm),
            check=check,
        )
    found = run.checked
    files = _write_words(run, out, wanted) if out is not None else None
    if json:
        told = {} if found is None else {"checked": found.to_dict()}
        print_json(run.to_dict(**wanted.read, test=ground) | told | {"files": [str(f) for f in files or ()]})
    elif not quiet:
        _print_run(run, wanted, files, ground)
        if found is not None:
            typer.echo(f"Checked: {found}")


def map_command(
    image: Image,
    question: Question,
    word: Annotated[
        str | None, typer.Argument(help="A word or phrase of answer or question; default: whole answer.")
    ] = None,
    more: More = None,
    out: Annotated[str, typer.Option("--out", "-o", help="PNG, WebP, JPEG, NPZ or JSON.")] = "map.png",
    model: Model = "scene",
    method: Method = "raw",
    layers: Layers = None,
    heads: Heads = None,
    token: Annotated[
        int | None, typer.Option(help="Of an answer token by its number, from 0, instead of a word.")
    ] = None,
    rows: Rows = None,
    occurrence: Annotated[int | None, typer.Option(help="Which one, if the word occurs more than once.")] = None,
    part: Annotated[str | None, typer.Option(help="Look for the word in 'question' or 'answer' only.")] = None,
    picture: Annotated[int, typer.Option(min=0, help="On which picture, from 0, if there are several.")] = 0,
    frame: Annotated[
        int | None, typer.Option(min=0, help="Of a video, on which frame, from 0; default: a sheet of all.")
    ] = None,
    frames: Frames = None,
    fps: Fps = None,
    normalise: Annotated[str, typer.Option(help="none, share, uniform, max, minmax, rank.")] = "none",
    sinks: Sinks = "keep",
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
    """Draw where the model looked for one word, phrase or the whole answer, on the original picture or video."""
    wanted, paths = choice(method, layers, heads), [image, *(more or [])]
    check_normalisation(normalise)
    check_sinks(sinks)
    check_rows(rows)
    _check_place(word, token, occurrence, part)
    if picture >= len(paths):
        raise SpecError(f"--picture {picture} does not exist: there are {len(paths)}, counted from 0")
    check_question(question, len(paths), answer, system)
    check_map_file(out)
    pictures = read_pictures(paths, frames, fps)
    vlm = load_model(model, device, dtype, revision, attention)
    with own_knobs():
        run = vlm.ask(
            pictures,
            question,
            answer=answer,
            system=system,
            max_new_tokens=max_new_tokens,
            capture=wanted.spec(vlm),
        )
    place: dict[str, Any] = {"part": part, "occurrence": occurrence, "image": picture, "normalise": normalise}
    place["sinks"] = sinks
    place |= {} if rows is None else {"rows": rows}
    place |= {} if frame is None else {"frame": frame}
    look = _look(run, word if token is None else token, wanted.read | place)
    look.save(out)
    if json:
        print_json(look.to_dict() | {"answer": run.answer, "file": out})
    elif not quiet:
        _print_look(run, look, out)


def _check_place(word: str | None, token: int | None, occurrence: int | None, part: str | None) -> None:
    if token is not None and word is not None:
        raise SpecError(f"give a word or --token, not both: got {word!r} and {token}")
    if token is not None and part is not None:
        raise SpecError("--token counts the tokens of the answer: leave out --part")
    if part not in (None, "question", "answer"):
        raise SpecError(f"--part must be question or answer, got {part!r}")
    if word is not None and not word.strip():
        raise PromptError("the word to look for is empty: leave it out for the whole answer")
    if occurrence is not None and word is None:
        raise SpecError("--occurrence says which of several equal words is meant: name the word")
    if occurrence is not None and occurrence < 1:
        raise SpecError(f"--occurrence counts from 1, got {occurrence}")


def _look(run: Run, what: str | int | None, options: dict[str, Any]) -> Look:
    if what is None and options["part"] != "question" and not run.answer:
        raise PromptError("the model gave no answer, so there is nothing to draw: name a word of the question")
    return run.map(what, **options)


def _write_words(run: Run, out: str, wanted: Choice) -> list[Path]:
    from vlmattn.core.files import filled_folder

    looks = _looks(run, wanted)
    if not looks:
        return []
    with filled_folder(out) as place:
        return [look.save(place(name)) for name, look in looks]


def _looks(run: Run, wanted: Choice) -> list[tuple[str, Look]]:
    from vlmattn.core.files import safe_name

    # All maps come first: if one cannot be made, nothing has been written.
    words = [word for word in run.words() if any(c.isalnum() for c in word.text)]
    found = []
    for image in range(len(run.pictures)):
        ending = f"-picture-{image}.png" if len(run.pictures) > 1 else ".png"
        for number, word in enumerate(words):
            found.append((f"{number:02d}-{safe_name(word.text)}{ending}", run.map(word, image=image, **wanted.read)))
        if words:
            found.append((f"answer{ending}", run.map(None, image=image, **wanted.read)))
    return found


def _print_run(run: Run, wanted: Choice, files: list[Path] | None, ground: bool) -> None:
    typer.echo(run.answer or "(the model gave no answer)")
    words = run.grounding(**wanted.read, test=ground)
    if words:
        typer.echo(table(_head(len(run.pictures), ground), [_row(word) for word in words]))
    if words and ground:
        typer.echo(words[0].threshold)
    for line in _frame_tables(run, words):
        typer.echo(line)
    chosen = [f"{name} {value}" for name, value in wanted.read.items() if value not in (None, "raw")]
    if chosen:
        typer.echo(
            f"read with {', '.join(chosen)}" + ("" if wanted.method == "raw" else "; shares are of raw attention")
        )
    for file in files or ():
        typer.echo(f"wrote {file}")
    if files is not None and not files:
        typer.echo("nothing was drawn: the answer has no words")


def _frame_tables(run: Run, words: list[WordGrounding]) -> list[str]:
    """For every video, how much of each word's attention went to which frame."""
    found = []
    for number, seen in enumerate(run.pictures):
        times = getattr(seen, "times", ())
        rows = [[w.word, *(f"{share:.1%}" for share in w.frame_shares[number])] for w in words]
        rows = [row for row in rows if len(row) > 1]
        if times and rows:
            found.append(table([f"frame of {seen.name}", *(f"{time:.1f} s" for time in times)], rows))
    return found


def _head(pictures: int, ground: bool) -> list[str]:
    shares = ["picture"] if pictures == 1 else [f"picture {n}" for n in range(pictures)]
    peaks = ["peak (x, y)"] if pictures == 1 else [f"peak in {n}" for n in range(pictures)]
    return [
        "word",
        *shares,
        "question",
        "system",
        "log p",
        *peaks,
        *(["verdict", "lost with it", "chance"] if ground else []),
    ]


def _row(word: WordGrounding) -> list[str]:
    system = word.shares.get("bos", 0.0) + word.shares.get("system", 0.0)
    shares = [*word.image_shares, word.shares.get("question", 0.0), system]
    peaks = ["flat" if xy is None else f"{xy[0]:.0f}, {xy[1]:.0f}" for xy in word.peaks_xy]
    return [word.word, *(f"{share:.0%}" for share in shares), f"{word.log_probability:.2f}", *peaks, *_tested(word)]


def _tested(word: WordGrounding) -> list[str]:
    """Verdict, log-probability lost with the peak over elsewhere, and chance; dashes where nothing could be tested."""
    if not word.threshold:
        return []
    excess = "-" if word.evidence is None else f"{word.evidence.excess:+.2f}"
    return [word.verdict or "-", excess, "-" if word.chance is None else f"{word.chance:.0%}"]


def _print_look(run: Run, look: Look, out: str) -> None:
    summary = look.to_dict()
    typer.echo(run.answer or "(the model gave no answer)")
    flat = summary["peak_xy"] is None or summary["flat"]
    peak = "flat map" if flat else "peak at {:.0f}, {:.0f}".format(*summary["peak_xy"])
    peak += "" if flat or summary.get("peak_frame") is None else f" of frame {summary['peak_frame']}"
    typer.echo(f"{look.label}: {peak}; wrote {out}")
