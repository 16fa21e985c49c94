"""``vlmattn faithfulness``."""

from __future__ import annotations

from typing import Annotated

import typer

from vlmattn.cli.choices import check_question, choice, own_knobs, read_pictures
from vlmattn.cli.options import (
    Answer,
    Device,
    Dtype,
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
    System,
    load_model,
    print_json,
)
from vlmattn.core.errors import PromptError, SpecError


def faithfulness(
    image: Image,
    question: Question,
    word: Annotated[str | None, typer.Argument(help="A word or phrase of the answer; default: all of it.")] = None,
    more: More = None,
    model: Model = "scene",
    method: Method = "raw",
    layers: Layers = None,
    heads: Heads = None,
    metrics: Annotated[
        str, typer.Option(help="Some of deletion, insertion, comprehensiveness …, with commas; a wrong one lists all.")
    ] = "deletion,insertion,comprehensiveness,sufficiency",
    baseline: Annotated[
        str | None, typer.Option(help="What parts are replaced with: mean, black, blur, inpaint, imputed.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn at random.")] = 0,
    occurrence: Annotated[int | None, typer.Option(min=1, help="Which one, if the word occurs more than once.")] = None,
    picture: Annotated[int, typer.Option(min=0, help="Which picture, from 0, if there are several.")] = 0,
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
    """Whether the answer becomes less likely without what a word's map puts first: removal measures of the map."""
    wanted, paths = choice(method, layers, heads), [image, *(more or [])]
    names = _metrics(metrics)
    _check(baseline, word, picture, len(paths))
    check_question(question, len(paths), answer, system)
    pictures = read_pictures(paths, None, None)
    vlm = load_model(model, device, dtype, revision, attention)
    with own_knobs():
        run = vlm.ask(
            pictures, question, answer=answer, system=system, max_new_tokens=max_new_tokens, capture=wanted.spec(vlm)
        )
        options = {"baseline": baseline, "occurrence": occurrence, "image": picture, "seed": seed} | wanted.read
        if not run.answer:
            raise PromptError("the model gave no answer, so nothing can become less likely: give one with --answer")
        told = run.faithfulness(word, metrics=names, part="answer", **options)
    if json:
        print_json({"answer": run.answer} | told.to_dict())
    elif not quiet:
        typer.echo(run.answer)
        typer.echo(str(told))


def _metrics(text: str) -> list[str]:
    from vlmattn.api.faithfulness import METRICS

    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in METRICS:
            raise SpecError(f"--metrics must be some of {', '.join(METRICS)}; got {name!r}")
    return names


def _check(baseline: str | None, word: str | None, picture: int, count: int) -> None:
    from vlmattn.faithfulness import BASELINES

    if baseline is not None and baseline not in BASELINES:
        raise SpecError(f"--baseline must be one of {', '.join(BASELINES)}; got {baseline!r}")
    if word is not None and not word.strip():
        raise PromptError("the word to look for is empty: leave it out for the whole answer")
    if picture >= count:
        raise SpecError(f"--picture {picture} does not exist: there are {count}, counted from 0")
