"""``vlmattn score`` and ``vlmattn compare``: answers that are there already, scored and compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmattn.cli.options import Json, Quiet, print_json
from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.evaluate import Comparison, Interval
    from vlmattn.hallucination import Benchmark, Readings, Score

Draws = Annotated[int, typer.Option(min=100, help="Of pictures, for intervals and tests.")]
Seed = Annotated[int, typer.Option(min=0, help="Of those draws.")]


def score(
    bench: Annotated[
        str,
        typer.Argument(
            help="pope, chair, amber, amber-questions, hallusionbench, mme, scene-presence or scene-captions."
        ),
    ],
    answers: Annotated[Path, typer.Argument(help="JSON lines, JSON, TSV, CSV or XLSX; of MME, a folder.")],
    data: Annotated[
        Path | None, typer.Option(help="The official files: a folder, or a file; of chair, objects by picture as JSON.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="Of pope, MME or scenes; repeat for several.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Of pope and scenes: official, opera, vcd, strict …")] = None,
    parser: Annotated[
        str | None, typer.Option(help="Of MME and AMBER's questions, or the rule of HallusionBench.")
    ] = None,
    family: Annotated[str | None, typer.Option(help="Of chair: lemma, pattern, or plain, which needs no data.")] = None,
    synonyms: Annotated[
        Path | None, typer.Option(help="Of chair: your copy of its synonyms.txt; default: this package's own table.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Of pope: a file of RePOPE, whose labels are used instead.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Of scenes.")] = 100,
    scene_seed: Annotated[int, typer.Option(min=0, help="Of scenes.")] = 0,
    readings: Annotated[bool, typer.Option(help="The same answers by every parser, scorer and protocol.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file for 'vlmattn compare'.")] = None,
    draws: Draws = 10_000,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score answers as the benchmark's official program does, with intervals over pictures."""
    from vlmattn.cli.benches import Chosen, find_bench
    from vlmattn.core.files import check_can_write

    if out is not None:
        check_can_write(out)
    chosen = Chosen(data, tuple(split or ()), protocol, parser, family, synonyms, labels, count, scene_seed)
    benchmark = find_bench(bench, chosen)
    said = _answers(bench, answers, benchmark)
    if readings:
        _show_readings(benchmark, said, json=json, quiet=quiet)
        return
    show_score(benchmark, said, out, draws, seed, json=json, quiet=quiet)


def compare(
    a: Annotated[Path, typer.Argument(help="A score written by 'vlmattn score -o'.")],
    b: Annotated[Path, typer.Argument(help="Another of the same benchmark.")],
    draws: Draws = 10_000,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Whether two scores differ: paired by item, pictures drawn again, corrected for asking often."""
    from vlmattn.evaluate import compare as compare_scores
    from vlmattn.evaluate import load_score

    first, clusters = load_score(a)
    second, others = load_score(b)
    if clusters != others:
        raise SpecError(f"{a} and {b} are not of the same items and pictures")
    found = compare_scores(first, second, clusters or None, draws=draws, seed=seed)
    if json:
        print_json(_plain(found.to_dict()))
    elif not quiet:
        typer.echo(_compared(found))


def _answers(bench: str, path: Path, benchmark: Benchmark) -> dict[str, str]:
    from vlmattn.hallucination import Mme, read_answers, read_mme_answers

    if bench == "mme" and path.is_dir() and isinstance(benchmark, Mme):
        return read_mme_answers(path, list(dict.fromkeys(q.subtask for q in benchmark.questions)))
    return read_answers(path, benchmark.items())


def show_score(
    benchmark: Benchmark, said: Mapping[str, str], out: Path | None, draws: int, seed: int, *, json: bool, quiet: bool
) -> None:
    """Score answers, write the score, and show it with intervals over pictures."""
    from vlmattn.evaluate import clusters_of, intervals, save_score

    found = benchmark.score(said)
    clusters = clusters_of(benchmark)
    known = intervals(found, clusters, draws=draws, seed=seed)
    if out is not None:
        save_score(out, found, clusters)
    if json:
        ends = {name: {"low": one.low, "high": one.high} for name, one in known.items()}
        print_json(_plain(found.to_dict() | {"intervals": ends, "draws": draws, "seed": seed}))
    elif not quiet:
        typer.echo(_scored(found, known))
        if out is not None:
            typer.echo(f"wrote {out}")


def _scored(found: Score, known: Mapping[str, Interval]) -> str:
    from vlmattn.cli.table import table

    rows = []
    for name, value in found.metrics.items():
        ends = known.get(name)
        rows.append([name, _number(value), "" if ends is None else f"{_number(ends.low)} to {_number(ends.high)}"])
    told = ", ".join(f"{name} {value}" for name, value in found.settings.items())
    notes = [f"note: {note}" for note in found.notes]
    return "\n".join([f"{found.benchmark}: {told}", table(("", "value", "95 % interval"), rows), *notes])


def _show_readings(benchmark: Benchmark, said: Mapping[str, str], *, json: bool, quiet: bool) -> None:
    from vlmattn.hallucination import read_every_way

    found = read_every_way(benchmark, said)
    if json:
        rows = {name: dict(one.metrics) for name, one in found.scores.items()}
        print_json(_plain({"scores": rows, "spread": found.spread, "missing": dict(found.missing)}))
    elif not quiet:
        typer.echo(_every_reading(found))


def _every_reading(found: Readings) -> str:
    from vlmattn.cli.table import table

    names = list(dict.fromkeys(name for one in found.scores.values() for name in one.metrics))
    head = ("read as", *names[:8])
    rows = [[way, *(_number(one.metrics.get(name)) for name in names[:8])] for way, one in found.scores.items()]
    rows.append(["spread", *(_number(found.spread.get(name)) for name in names[:8])])
    return "\n".join([table(head, rows), *(f"{way}: {why}" for way, why in found.missing.items())])


def _compared(found: Comparison) -> str:
    from vlmattn.cli.table import table

    rows = [
        [
            one.metric,
            _number(one.a),
            _number(one.b),
            _number(one.difference.value),
            f"{_number(one.difference.low)} to {_number(one.difference.high)}",
            _number(one.p),
            _number(one.adjusted_p),
            _number(one.mcnemar_p),
        ]
        for one in found.differences
    ]
    head = ("", "a", "b", "a - b", "95 % interval", "p", "p (Holm)", "p (McNemar)")
    first = f"{found.benchmark}: {found.items} items about {found.clusters} pictures"
    return "\n".join([first, table(head, rows), *(f"note: {note}" for note in found.notes)])


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}".rstrip("0").rstrip(".")


def _plain(value: Any) -> Any:
    # JSON has no word for what is not defined but null.
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and value != value else value
