"""Every ``format=`` of :meth:`Run.export`: which maps it takes, and what writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmattn.api.checks import map_options
from vlmattn.api.saved import save_run
from vlmattn.api.whole import one_pass
from vlmattn.core.errors import FileError, MapError, SpecError
from vlmattn.core.files import as_path, check_can_hold, check_can_write
from vlmattn.trace import Span

if TYPE_CHECKING:
    from vlmattn.api.look import Look
    from vlmattn.api.run import Run
    from vlmattn.export import Written

EXPORTS: dict[str, str] = {
    "figure": "for papers: PDF, SVG, PNG or WebP",
    "animation": "over answer tokens or layers: WebP, GIF or MP4",
    "coco": "folder with COCO JSON (boxes, RLE masks) and upright pictures",
    "cvat": "folder with CVAT for images 1.1 (XML) and upright pictures",
    "label-studio": "folder with Label Studio tasks (pre-annotations), their interface and upright pictures",
    "fiftyone": "folder with a FiftyOne data set: heatmaps, detections, fields and upright pictures",
    "trace": "the whole run as safetensors, for va.load_run",
    "words": "Parquet table, a row for every word",
    "maps": "Parquet table, a row for every grid of every map",
}
"""Formats of :meth:`Run.export`, and what each writes."""
_BY_ENDING = {
    ".pdf": "figure", ".svg": "figure", ".png": "figure", ".webp": "figure", ".gif": "animation", ".mp4": "animation",
    ".safetensors": "trace", ".parquet": "words",
}  # fmt: skip
_FOLDERS = ("coco", "cvat", "label-studio", "fiftyone")
_REGIONS = ("rule", "quantile", "threshold", "most", "least_pixels")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "figure": (
        "size", "row_titles", "column_titles", "scale", "cmap", "caption", "colour_bar", "dpi", "over", "methods",
        "beside",
    ),
    "animation": ("fps", "max_side", "scale", "cmap", "titles", "over"),
    "coco": _REGIONS,
    "cvat": _REGIONS,
    "label-studio": (*_REGIONS, "prefix"),
    "fiftyone": (*_REGIONS, "name", "risk"),
    "trace": ("pictures",),
    "words": ("rule", "risk"),
    "maps": (),
}  # fmt: skip
Words = str | int | Span | Sequence[str | int | Span] | None


def export_run(run: Run, path: str | Path, what: Words, format: str | None, options: Mapping[str, Any]) -> Written:
    """See :meth:`Run.export`."""
    kind = kind_of(path, format)
    known = _OPTIONS[kind]
    own = {name: value for name, value in options.items() if name in known}
    rest = {name: value for name, value in options.items() if name not in known}
    return _WRITERS[kind](run, as_path(path), what, own, rest)


def kind_of(path: str | Path, format: str | None) -> str:
    """The format, checked with its place before anything is made.

    Raises:
        SpecError: no such format, or none said and the ending says none. FileError: a place that cannot be written.
    """
    target = as_path(path)
    kind = _BY_ENDING.get(target.suffix.lower()) if format is None else format
    if kind is None:
        raise SpecError(f"{str(target)!r} does not say a format: give format=, one of {', '.join(EXPORTS)}")
    if kind not in EXPORTS:
        raise SpecError(f"format must be one of {', '.join(EXPORTS)}; got {kind!r}")
    if kind in _FOLDERS:
        check_can_hold(target)
    else:
        _check_ending(target, kind)
        check_can_write(target)
    return kind


def _check_ending(target: Path, kind: str) -> None:
    from vlmattn.export import ANIMATION_ENDINGS, FIGURE_ENDINGS

    endings = {"figure": FIGURE_ENDINGS, "animation": ANIMATION_ENDINGS, "trace": (".safetensors",)}
    allowed = endings.get(kind, (".parquet",))
    if target.suffix.lower() not in allowed:
        raise FileError(f"format {kind!r} is written as {', '.join(allowed)}, got {str(target)!r}")


# -- which maps --------------------------------------------------------------------------------------------------------


def words_of(run: Run, what: Words) -> list[Any]:
    """What is asked for, one by one; by default every word of the answer that has a letter or digit.

    Raises:
        MapError: the answer has no word. SpecError: nothing is asked for.
    """
    if what is None:
        found: list[Any] = [word for word in run.words() if any(c.isalnum() for c in word.text)]
        if not found:
            raise MapError("the answer has no word: name words of the question")
        return found
    if isinstance(what, (str, Integral, Span)):
        return [what]
    given = list(what) if isinstance(what, Iterable) else [what]
    if not given:
        raise SpecError("no word was named: leave it out for all words of the answer")
    return given


def looks_of(run: Run, what: Words, options: Mapping[str, Any]) -> list[Look]:
    """A map of every word on every picture, or on ``image`` alone."""
    images = [options["image"]] if "image" in options else range(len(run.pictures))
    rest = {name: value for name, value in options.items() if name != "image"}
    words = words_of(run, what)
    with one_pass(run):
        return [run.map(word, image=image, **rest) for image in images for word in words]


def panels(
    run: Run,
    what: Words,
    options: Mapping[str, Any],
    *,
    over: str | None = None,
    methods: Sequence[str] | None = None,
    beside: Mapping[str, Run] | None = None,
) -> tuple[list[list[Look]], list[str], list[str]]:
    """Rows of maps, a row for every word, with the titles of rows and columns.

    Args:
        over: ``layers``: a column for each of them. methods: a column for each; as shares unless ``normalise`` says
            else. beside: further runs of the same question by name, such as steered ones: a column for each.

    Raises:
        SpecError: more than one of the three, or one that is empty or unknown.
    """
    said = [name for name, value in (("over", over), ("methods", methods), ("beside", beside)) if value is not None]
    if len(said) > 1:
        raise SpecError(f"a figure has one kind of column: got {' and '.join(said)}")
    words = words_of(run, what)
    if over not in (None, "layers"):
        raise SpecError(f"over must be 'layers', got {over!r}")
    if over is not None:
        return _over_layers(run, words, options)
    if methods is not None:
        return _over_methods(run, words, methods, {"normalise": "share", **options})
    if beside is not None:
        _check_beside(beside)
        return _over_runs({"plain": run, **beside}, words, options)
    with one_pass(run):
        row = [run.map(word, **options) for word in words]
    return [row], [], []


def _check_beside(beside: Any) -> None:
    if not isinstance(beside, Mapping) or not beside or not all(hasattr(one, "map") for one in beside.values()):
        raise SpecError(f"beside must be further runs by name, such as {{'VAR': run}}, got {beside!r:.80}")
    if "plain" in beside:
        raise SpecError("'plain' names the run itself: give the runs beside it other names")


def _over_layers(
    run: Run, words: Sequence[Any], options: Mapping[str, Any]
) -> tuple[list[list[Look]], list[str], list[str]]:
    with one_pass(run):
        layers = layers_of(run, options)
        rest = {name: value for name, value in options.items() if name != "layers"}
        rows = [[run.map(word, layers=[layer], **rest) for layer in layers] for word in words]
    return rows, [row[0].label for row in rows], [f"layer {layer}" for layer in layers]


def layers_of(run: Run, options: Mapping[str, Any]) -> tuple[int, ...]:
    """The layers that ``layers=`` means, all kept ones by default."""
    from vlmattn.maps.choices import choose_layers

    layers = options.get("layers")
    map_options(run.trace, None, "raw", {"layers": layers})
    return choose_layers(run.trace, layers)[0]


def _over_methods(
    run: Run, words: Sequence[Any], methods: Sequence[str], options: Mapping[str, Any]
) -> tuple[list[list[Look]], list[str], list[str]]:
    if isinstance(methods, str) or not methods:
        raise SpecError(f"methods must be a list of names, such as ['raw', 'relative'], got {methods!r}")
    with one_pass(run):
        rows = [[run.map(word, method=method, **options) for method in methods] for word in words]
    return rows, [row[0].label for row in rows], list(methods)


def _over_runs(
    runs: Mapping[str, Run], words: Sequence[Any], options: Mapping[str, Any]
) -> tuple[list[list[Look]], list[str], list[str]]:
    # A word of one answer is looked for by its text in the others, which may be other answers.
    first = next(iter(runs.values()))
    rows = []
    for word in words:
        there = word.text if isinstance(word, Span) else word
        rows.append([run.map(word if run is first else there, **options) for run in runs.values()])
    return rows, [row[0].label for row in rows], list(runs)


# -- writers -----------------------------------------------------------------------------------------------------------


def _figure(run: Run, path: Path, what: Words, own: dict[str, Any], rest: dict[str, Any]) -> Written:
    from vlmattn.export import Written, figure

    chosen = {name: own.pop(name) for name in ("over", "methods", "beside") if name in own}
    rows, row_titles, column_titles = panels(run, what, rest, **chosen)
    made = figure(rows, **{"row_titles": row_titles, "column_titles": column_titles, **own})
    return Written((made.save(path),))


def _animation(run: Run, path: Path, what: Words, own: dict[str, Any], rest: dict[str, Any]) -> Written:
    from vlmattn.export import Written, animate

    looks, titles = moving(run, what, own.pop("over", None), rest)
    made = animate(looks, **{"titles": titles, **own})
    return Written((made.save(path),))


def moving(run: Run, what: Words, over: str | None, options: Mapping[str, Any]) -> tuple[list[Look], list[str] | None]:
    """The maps of an animation, and their titles: over the answer's tokens (or the named words), or over layers.

    Raises:
        SpecError: ``over`` is neither, or layers of several words.
    """
    if over not in (None, "tokens", "layers"):
        raise SpecError(f"over must be 'tokens' or 'layers', got {over!r}")
    if over == "layers":
        words = words_of(run, what) if what is not None else [None]
        if len(words) > 1:
            raise SpecError(f"an animation over layers is of one word, got {len(words)}")
        rows, _, titles = _over_layers(run, words, options)
        return rows[0], [f"{rows[0][0].label}, {title}" for title in titles]
    if what is None:
        return run.token_maps(**options), None
    if over == "tokens":
        raise SpecError("an animation over tokens is of the whole answer: leave out the words")
    with one_pass(run):
        return [run.map(word, **options) for word in words_of(run, what)], None


def _annotations(name: str) -> Callable[..., Written]:
    def write(run: Run, path: Path, what: Words, own: dict[str, Any], rest: dict[str, Any]) -> Written:
        from vlmattn import export

        written: Written = getattr(export, name)(path, looks_of(run, what, rest), **own)
        return written

    return write


def _fiftyone(run: Run, path: Path, what: Words, own: dict[str, Any], rest: dict[str, Any]) -> Written:
    from vlmattn.export import save_fiftyone

    asked = {name: rest[name] for name in ("method", "layers", "heads") if name in rest}
    grounding = run.grounding(**asked, risk=own.pop("risk", False))
    return save_fiftyone(path, looks_of(run, what, rest), grounding=grounding, **own)


def _trace(run: Run, path: Path, what: Words, own: dict[str, Any], rest: dict[str, Any]) -> Written:
    from vlmattn.export import Written

    if rest:
        raise SpecError(f"a saved run holds all that was kept: leave out {', '.join(rest)}")
    _check_all(what, "trace")
    return Written((save_run(run, path, **own),))


def _words(run: Run, path: Path, what: Words, own: dict[str, Any], rest: dict[str, Any]) -> Written:
    from vlmattn.export import Written, save_table, word_table

    _check_all(what, "words")
    return Written((save_table(path, word_table(run, **own, **rest)),))


def _maps(run: Run, path: Path, what: Words, own: dict[str, Any], rest: dict[str, Any]) -> Written:
    from vlmattn.export import Written, map_table, save_table

    return Written((save_table(path, map_table(looks_of(run, what, rest), **own)),))


def _check_all(what: Words, kind: str) -> None:
    if what is not None:
        raise SpecError(f"format={kind!r} takes all words of the answer: leave out {what!r}")


_WRITERS: dict[str, Callable[..., Written]] = {
    "figure": _figure,
    "animation": _animation,
    "coco": _annotations("save_coco"),
    "cvat": _annotations("save_cvat"),
    "label-studio": _annotations("save_label_studio"),
    "fiftyone": _fiftyone,
    "trace": _trace,
    "words": _words,
    "maps": _maps,
}
