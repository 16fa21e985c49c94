"""``vlmattn gaze``: where models look beside where people look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmattn.cli.options import (
    Device,
    Dtype,
    Heads,
    Json,
    Layers,
    MaxNewTokens,
    Model,
    Quiet,
    Revision,
    load_model,
    print_json,
)
from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.evaluate.gaze import Looker, Summary
    from vlmattn.gaze import Fixations

Images = Annotated[Path | None, typer.Argument(help="Folder of pictures.")]
GazeFile = Annotated[
    Path | None,
    typer.Option(help="Scanpaths: a file of 'vlmattn' (csv, tsv, json, jsonl, parquet), or see --format."),
]
Format = Annotated[
    str,
    typer.Option(
        help="Of --gaze: vlmattn, osie, coco-search18, coco-freeview, salicon, refcoco-gaze, mit1003, "
        "capmit1003 or table (columns by their usual names)."
    ),
]
Questions = Annotated[
    Path | None,
    typer.Option(help="Table with image, question (or caption), and if needed task, word, x0 y0 x1 y1."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of results; the same command goes on with it.")]
ClipModel = Annotated[str | None, typer.Option(help="An open_clip model instead, such as scene-clip.")]
WithNeva = Annotated[bool, typer.Option(help="With --clip: NevaClip's scanpaths too; slow.")]
Synthetic = Annotated[
    int | None, typer.Option(min=1, help="Instead of people: synthetic observers on so many drawn scenes.")
]
Subjects = Annotated[int, typer.Option(min=1, help="Synthetic observers.")]
Task = Annotated[str, typer.Option(help="Of synthetic observers: search or free.")]
Method = Annotated[str | None, typer.Option(help="Of the map; default: raw attention, or gradient of open_clip.")]
ByLayer = Annotated[bool, typer.Option(help="Measure every layer too.")]
Metric = Annotated[
    list[str] | None,
    typer.Option(help="Measures of maps or scanpaths, by name; repeat. Default: see docs/gaze.md."),
]
Degree = Annotated[float, typer.Option(help="Where no screen is known: one degree as a share of the longer side.")]
Begins = Annotated[
    str | None,
    typer.Option(help="'centre' where people had to begin in the middle, else 'free' (the default but for synthetic)."),
]
Rescale = Annotated[
    bool, typer.Option(help="Bring scanpaths on another size to that of the picture, which was shown whole.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many cases.")]
Sheets = Annotated[int, typer.Option(min=0, help="Cases to draw.")]
Draws = Annotated[int, typer.Option(min=100, help="Of pictures, for intervals.")]
Seed = Annotated[int, typer.Option(min=0, help="Of scenes, observers, baselines and intervals.")]

app = typer.Typer(
    help="Where a model looks beside where people look.", no_args_is_help=True, rich_markup_mode=None
)  # fmt: skip


@app.callback()
def _root() -> None:
    """Where a model looks beside where people look."""


@app.command()
def compare(
    images: Images = None,
    gaze: GazeFile = None,
    format: Format = "vlmattn",
    questions: Questions = None,
    out: Out = Path("gaze-comparison"),
    model: Model = "scene",
    clip: ClipModel = None,
    neva: WithNeva = False,
    synthetic: Synthetic = None,
    subjects: Subjects = 6,
    task: Task = "search",
    method: Method = None,
    layers: Layers = None,
    heads: Heads = None,
    by_layer: ByLayer = True,
    metric: Metric = None,
    degree: Degree = 0.035,
    begins: Begins = None,
    rescale: Rescale = False,
    limit: Limit = None,
    sheets: Sheets = 8,
    draws: Draws = 2000,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 64,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare a model's maps and scanpaths with people's: measures, baselines, the human ceiling, depth by depth."""
    from vlmattn.cli.progress import progress
    from vlmattn.core.files import check_can_hold
    from vlmattn.evaluate.gaze import Measuring, compare_gaze, read_cases, scene_cases

    check_can_hold(out)
    first: Any = begins or ("centre" if synthetic is not None else "free")
    how = Measuring(**_metrics(metric), degree=degree, seed=seed, begins=first, rescale=rescale)
    if synthetic is not None:
        if images is not None or gaze is not None or questions is not None:
            raise SpecError("--synthetic takes no pictures, scanpaths or questions")
        cases = scene_cases(synthetic, seed=seed, subjects=subjects, task=task)[:limit]
    elif images is None or gaze is None:
        raise SpecError("give a folder of pictures and --gaze, or --synthetic N")
    else:
        cases = read_cases(images, read_gaze(gaze, format, images), questions, seed=seed, limit=limit)
    looker = _looker(clip, neva, model, method, (layers, heads), by_layer, max_new_tokens, (device, dtype, revision))
    with progress("cases", show=not (quiet or json)) as tick:
        done = compare_gaze(cases, looker, out, how=how, sheets=sheets, draws=draws, progress=tick)
    if json:
        from vlmattn.evaluate.gaze.tables import plain

        print_json(plain(done.summary.to_dict()))
    elif not quiet:
        typer.echo(_shown(done.summary))
        typer.echo(f"wrote {out}")


def read_gaze(path: Path, format: str, images: Path) -> Fixations:
    """Scanpaths of a file or folder in a named format; ``images`` tells sizes where the format does not.

    Raises:
        SpecError: no such format. FileError: what is there cannot be read.
    """
    from vlmattn import gaze

    readers: dict[str, Any] = {
        "vlmattn": gaze.read_fixations,
        "osie": gaze.read_osie,
        "coco-search18": gaze.read_coco_search18,
        "coco-freeview": gaze.read_coco_freeview,
        "salicon": gaze.read_salicon,
        "refcoco-gaze": gaze.read_refcoco_gaze,
        "mit1003": lambda data: gaze.read_mit1003(data, images),
        "capmit1003": lambda data: gaze.read_capmit1003(data, images),
        "table": lambda data: gaze.read_table(data, sizes=images),
    }
    if format not in readers:
        raise SpecError(
            f"the format of scanpaths is one of {', '.join(readers)}, got {format!r}; others are read in Python and "
            "written by vlmattn.gaze.write_fixations"
        )
    found: Fixations = readers[format](path)
    return found


def _metrics(names: list[str] | None) -> dict[str, Any]:
    from vlmattn.gaze import MAP_METRICS
    from vlmattn.gaze.scanpaths import SCANPATH_METRICS

    if not names:
        return {}
    unknown = [name for name in names if name not in MAP_METRICS and name not in SCANPATH_METRICS]
    if unknown:
        raise SpecError(f"there is no measure {unknown[0]!r}; of maps {sorted(MAP_METRICS)}, of scanpaths "
                        f"{sorted(SCANPATH_METRICS)}")  # fmt: skip
    return {
        "map_metrics": tuple(n for n in names if n in MAP_METRICS),
        "scanpath_metrics": tuple(n for n in names if n in SCANPATH_METRICS),
    }


def _looker(
    clip: str | None,
    neva: bool,
    model: str,
    method: str | None,
    chosen: tuple[str | None, str | None],
    by_layer: bool,
    max_new_tokens: int,
    place: tuple[str | None, str | None, str | None],
) -> Looker:
    from vlmattn.evaluate.gaze import ClipLooker, VlmLooker

    layers, heads = chosen
    if clip is None:
        if neva:
            raise SpecError("--neva needs --clip, an open_clip model")
        from vlmattn.cli.choices import choice

        read = choice(method or "raw", layers, heads)
        vlm = load_model(model, *place)
        return VlmLooker(vlm, read.method, read.heads, read.layers, by_layer, max_new_tokens=max_new_tokens)
    if layers is not None or heads is not None:
        raise SpecError("--layers and --heads are of vision-language models, not of --clip")
    from vlmattn.api import load_clip
    from vlmattn.gaze.models import Neva

    return ClipLooker(load_clip(clip, device=place[0]), method or "gradient", Neva() if neva else None)


def _shown(summary: Summary) -> str:
    from vlmattn.cli.table import table
    from vlmattn.evaluate.gaze.tables import WARNING

    lines = [WARNING] if summary.synthetic else []
    lines.append(f"{summary.cases} cases on {summary.images} pictures; share: of the way from chance to people")
    for kind in dict.fromkeys(row.kind for row in summary.rows):
        rows = [row for row in summary.rows if row.kind == kind]
        metrics = list(dict.fromkeys(row.metric for row in rows))[:5]
        held = {(row.source, row.metric): row for row in rows}
        body = []
        for source in dict.fromkeys(row.source for row in rows):
            cells = [held.get((source, m)) for m in metrics]
            share = [f" {c.of_ceiling.value:.0%}" if c is not None and c.of_ceiling is not None else "" for c in cells]
            body.append(
                [source, *("-" if c is None else f"{c.value.value:.3f}{s}" for c, s in zip(cells, share, strict=True))]
            )
        lines.append(table((f"{kind}s", *metrics), body))
    lines += [f"{d.kind} {d.metric}: most like people at {d.best} ({d.sureness:.0%} of draws)" for d in summary.depths]
    return "\n".join(lines)
