"""``vlmattn evaluate``: a benchmark answered by a model, scored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmattn.cli.options import (
    Device,
    Dtype,
    Json,
    Kernel,
    MaxNewTokens,
    Model,
    Quiet,
    Revision,
    System,
    load_model,
    pairs,
)
from vlmattn.cli.progress import progress
from vlmattn.cli.score import show_score


def evaluate(
    bench: Annotated[str, typer.Argument(help="pope, chair, amber, amber-questions, hallusionbench, mme, "
                                              "scene-presence or scene-captions.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; the same command goes on with it.")],
    model: Model = "scene",
    steering: Annotated[list[str] | None, typer.Option(help="'var', 'var:general' or 'var:p=0.6'; repeatable.")] = None,
    data: Annotated[Path | None, typer.Option(help="The official files, as for 'vlmattn score'.")] = None,
    images: Annotated[Path | None, typer.Option(help="The folder of its pictures.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Of pope, MME or scenes; repeat for several.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Of pope and scenes: official, opera, vcd, strict …")] = None,
    parser: Annotated[str | None, typer.Option(help="Of MME, AMBER's questions or HallusionBench.")] = None,
    family: Annotated[str | None, typer.Option(help="Of chair: lemma, pattern or plain.")] = None,
    synonyms: Annotated[Path | None, typer.Option(help="Of chair: your copy of its synonyms.txt.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Of pope: a file of RePOPE.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Of scenes.")] = 100,
    scene_seed: Annotated[int, typer.Option(min=0, help="Of scenes.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Answer only the first so many items; not scored.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Items at once.")] = 8,
    max_new_tokens: MaxNewTokens = 64,
    generate: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the model's generate, as "
                                                            "do_sample=true; repeatable.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of sampling, and of intervals.")] = 0,
    system: System = None,
    write: Annotated[list[str] | None, typer.Option(help="Write the answers as llava, chair, amber, lmms-eval, "
                                                         "vlmevalkit or parquet too; repeatable.")] = None,
    draws: Annotated[int, typer.Option(min=100, help="Of pictures, for intervals.")] = 10_000,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    attention: Kernel = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Have a model answer a benchmark, and score it. Killed runs go on where they stopped; processes started by
    'accelerate launch --multi_gpu -m vlmattn evaluate …' share the work."""
    from vlmattn.cli.benches import Chosen, find_bench
    from vlmattn.evaluate import Decoding, check_layouts, processes, write_run
    from vlmattn.evaluate import evaluate as run
    from vlmattn.steering import steering_of

    layouts = check_layouts(write or ())
    changes = [steering_of(one) for one in steering or ()]
    decoding = Decoding(max_new_tokens, system, seed, pairs(generate or ()))
    chosen = Chosen(data, tuple(split or ()), protocol, parser, family, synonyms, labels, count, scene_seed, images)
    benchmark = find_bench(bench, chosen)
    state = processes()
    where = device or (f"cuda:{state.local_process_index}" if state.num_processes > 1 and _gpus() else None)
    vlm = load_model(model, where, dtype, revision, attention)
    with progress(benchmark.name, show=not quiet and state.is_main_process) as tick:
        done = run(vlm, benchmark, out, steering=changes, decoding=decoding, batch=batch, limit=limit, progress=tick)
    if not state.is_main_process:
        return
    written = write_run(out, benchmark.items()[:limit], done.answers, layouts, model=model)
    if written and not quiet and not json:
        typer.echo(f"wrote {', '.join(path.name for path in written)} in {out}")
    if limit is not None:
        if not quiet:
            typer.echo(f"{len(done.answers)} answers in {out}; a part of a benchmark is not scored")
        return
    show_score(benchmark, done.answers, out / "score.json", draws, seed, json=json, quiet=quiet)


def _gpus() -> bool:
    import torch

    return torch.cuda.is_available()
