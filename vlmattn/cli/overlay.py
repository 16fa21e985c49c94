"""``vlmattn overlay``: a whole table of pictures and questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmattn.cli.choices import choice
from vlmattn.cli.options import (
    Device,
    Dtype,
    Heads,
    Json,
    Kernel,
    Layers,
    MaxNewTokens,
    Method,
    Model,
    Quiet,
    Revision,
    Rows,
    Sinks,
    System,
    load_model,
    pairs,
    print_json,
)
from vlmattn.cli.progress import progress
from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.api import Vlm
    from vlmattn.pipelines import Cluster, ModelChoice, OverlaysDone

Column = typer.Option


def overlay(
    table: Annotated[str, typer.Option("--input", "-i", help="CSV, JSON lines or Parquet: a path or an address.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; the same command goes on with it.")],
    image_column: Annotated[str, Column(help="Path or address of the picture.")] = "image",
    question_column: Annotated[str, Column(help="The question.")] = "question",
    words_column: Annotated[str | None, Column(help="Words or phrases, | between several; default: words.")] = None,
    answer_column: Annotated[str | None, Column(help="Given answers; default: answer.")] = None,
    id_column: Annotated[str | None, Column(help="Name of the row; default: id, else its number.")] = None,
    system_column: Annotated[str | None, Column(help="System text; default: system.")] = None,
    images: Annotated[str | None, typer.Option(help="Where relative paths of pictures start; default: the table's "
                                                    "folder.")] = None,
    form: Annotated[str, typer.Option("--format", help="Of overlays: png, webp or jpg.")] = "png",
    figure: Annotated[bool, typer.Option(help="With title, colour bar and small print, or the picture alone.")] = True,
    cmap: Annotated[str, typer.Option(help="Colour map.")] = "ember",
    quality: Annotated[int, typer.Option(help="Of webp and jpg, 1 to 100.")] = 92,
    results: Annotated[str, typer.Option("--table", help="Of results: jsonl, csv or parquet.")] = "jsonl",
    files: Annotated[str | None, typer.Option(help="Folder or address that overlays go to, instead of --out.")] = None,
    each_word: Annotated[bool, typer.Option("--each-word", help="Of rows that name no word, every word of the answer, "
                                                                "instead of the answer as a whole.")] = False,
    detector: Annotated[str | None, typer.Option(help="File of 'vlmattn detect MODEL --save': a risk for every "
                                                      "word.")] = None,
    model: Model = "scene",
    method: Method = "raw",
    layers: Layers = None,
    heads: Heads = None,
    rows: Rows = None,
    normalise: Annotated[str, typer.Option(help="none, share, uniform, max, minmax, rank.")] = "none",
    sinks: Sinks = "keep",
    steering: Annotated[list[str] | None, typer.Option(help="'var', 'var:general' or 'var:p=0.6'; repeatable.")] = None,
    system: System = None,
    max_new_tokens: MaxNewTokens = 64,
    generate: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the model's generate, as "
                                                            "do_sample=true; repeatable.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of sampling.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows at once.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="Threads beside each model that read and draw pictures.")] = 2,
    engine: Annotated[str, typer.Option(help="local, or ray: on a cluster, with replicas of the model.")] = "local",
    replicas: Annotated[int | None, typer.Option(help="Of ray: models at once; default: 1.")] = None,
    gpus_per_worker: Annotated[float | None, typer.Option(help="Of ray: GPUs of each model; default: 0.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Of ray: the cluster; default: RAY_ADDRESS, or one started "
                                                         "here.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    attention: Kernel = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Ask every row of a table and draw where the model looked: a table of results and a folder of overlays. Rows that
    cannot be asked have their error in the table. A run that was ended goes on with the same command."""
    from vlmattn.evaluate import Decoding
    from vlmattn.pipelines import (
        Columns,
        Drawing,
        ModelChoice,
        Output,
        OverlayJob,
        Reading,
        open_table,
        overlay_table,
        overlay_table_on_cluster,
    )

    cluster = _cluster(engine, replicas, gpus_per_worker, ray_address)
    wanted = choice(method, layers, heads)
    job = OverlayJob(
        ModelChoice(model, device, dtype, revision, attention),
        Reading(method, wanted.layers, wanted.heads, rows, normalise, sinks, each_word),
        Drawing(form, figure, cmap, quality),
        Decoding(max_new_tokens, system, seed, pairs(generate or ())),
        tuple(steering or ()),
        detector,
        batch_size,
        images,
    )
    output = Output(out, results, files)
    columns = Columns(image_column, question_column, words_column, answer_column, id_column, system_column)
    asked = open_table(table, columns)
    with progress("overlays", show=not quiet) as tick:
        if cluster is not None:
            done = overlay_table_on_cluster(asked, output, job, cluster, workers=workers, progress=tick)
        else:
            done = overlay_table(asked, output, job, vlm=lambda: _loaded(job.model), workers=workers, progress=tick)
    _show(done, json=json, quiet=quiet)


def _cluster(engine: str, replicas: int | None, gpus: float | None, address: str | None) -> Cluster | None:
    """Where the run goes; None for this process."""
    from vlmattn.pipelines import Cluster

    if engine not in ("local", "ray"):
        raise SpecError(f"--engine must be local or ray, got {engine!r}")
    if engine == "ray":
        return Cluster(1 if replicas is None else replicas, 0 if gpus is None else gpus, address=address)
    given = {"--replicas": replicas, "--gpus-per-worker": gpus, "--ray-address": address}
    wrong = [name for name, value in given.items() if value is not None]
    if wrong:
        raise SpecError(f"{', '.join(wrong)} go with --engine ray only")
    return None


def _loaded(told: ModelChoice) -> Vlm:
    return load_model(told.model, told.device, told.dtype, told.revision, told.attention)


def _show(done: OverlaysDone, *, json: bool, quiet: bool) -> None:
    if json:
        told = {"table": str(done.table), "rows": done.rows, "failed": done.failed, "partial": done.partial}
        print_json(told | {"made": done.made})
    elif not quiet:
        wrong = f"; {done.failed} with an error" if done.failed else ""
        partly = f"; {done.partial} with words that could not be drawn" if done.partial else ""
        typer.echo(f"wrote {done.table}: {done.rows} rows, {done.made} of them asked now{wrong}{partly}")
    if done.failed == done.rows:
        raise SpecError(f"no row could be asked: {done.table} says why")
