"""``vlmattn verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from vlmattn.cli.choices import check_question
from vlmattn.cli.options import Device, Dtype, Json, Kernel, Model, Quiet, Revision, load_model, print_json


def verify(
    image: Annotated[str | None, typer.Argument(help="A picture; default: one made for the purpose.")] = None,
    question: Annotated[str, typer.Option(help="What to ask.")] = "What is in the picture?",
    model: Model = "scene",
    tolerance: Annotated[float, typer.Option(min=0, help="Largest allowed difference of any logit.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="How much to generate.")] = 8,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    attention: Kernel = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Prove on a model that capture changes neither tokens nor logits; exit code 1 if it does."""
    from vlmattn.core.images import load_image

    check_question(question, 1, None)
    picture = load_image(image) if image is not None else None
    vlm = load_model(model, device, dtype, revision, attention)
    result = vlm.verify(picture, question, tolerance=tolerance, max_new_tokens=max_new_tokens)
    if json:
        print_json(result.to_dict() | {"model": vlm.describe()})
    elif not quiet:
        typer.echo(f"{vlm!r}\n{result}")
