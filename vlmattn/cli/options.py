"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vlmattn.api import Vlm

# Pictures and places are taken as text: a path object would turn 'https://…' into 'https:/…' and '' into '.'.
Image = Annotated[str, typer.Argument(help="The picture; or a video file, or a folder of frames.")]
Question = Annotated[str, typer.Argument(help="The question.")]
More = Annotated[list[str] | None, typer.Option("--image", help="A further picture or video; repeat for more.")]
Frames = Annotated[int | None, typer.Option(min=1, help="Of a video, take so many frames, evenly; default: 8.")]
Fps = Annotated[float | None, typer.Option(help="Of a video, take so many frames a second, instead of --frames.")]
Method = Annotated[
    str,
    typer.Option(
        help="raw, value (norm-weighted), relative (over a generic prompt), tam, logit_lens, integrated_gradients or "
        "occlusion."
    ),
]
Answer = Annotated[str | None, typer.Option(help="A given answer: nothing is generated, its rows are shown.")]
System = Annotated[str | None, typer.Option(help="System text, for models that have a place for it.")]
Model = Annotated[
    str, typer.Option("--model", "-m", help="'scene' or another model in the box, a hub name, or a folder.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; default: the first GPU, else the CPU.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16; default: as the checkpoint says.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
Kernel = Annotated[str | None, typer.Option("--attention", help="sdpa, eager, flash_attention_2, flex_attention.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="How much the model may write.")]
Layers = Annotated[
    str | None,
    typer.Option(
        help="A preset (all, middle, last_half, hgai, var, vicrop, carve), or numbers: '1', '4-8', '1,3,-1'; only "
        "these are kept; default: all. 'vlmattn models' tells the papers."
    ),
]
Heads = Annotated[
    str | None,
    typer.Option(
        help="Heads found for the model (see 'vlmattn heads'; in the box: localization, pointing, visual), a published "
        "preset (all, localization, ad_hh), or numbers: '0,5', '0-3' or '-1'; default: all."
    ),
]
Sinks = Annotated[
    str, typer.Option(help="Visual attention sinks: keep, drop (the other patches scaled up), or only them.")
]
Rows = Annotated[
    str | None,
    typer.Option(help="A preset (vicrop, localization, hgai, carve); default: the rows that stand for the word."),
]


def load_model(
    model: str, device: str | None, dtype: str | None, revision: str | None = None, attention: str | None = None
) -> Vlm:
    """The model an option names; a bar shows the loading of large ones on a terminal."""
    import sys

    from transformers.utils import logging

    from vlmattn.api import load
    from vlmattn.scene.box import is_in_the_box

    logging.set_verbosity_error()
    if is_in_the_box(model) or not sys.stderr.isatty():
        logging.disable_progress_bar()
    return load(model, device=device, dtype=dtype, revision=revision, attn_implementation=attention)


def pairs(given: Sequence[str]) -> dict[str, Any]:
    """What ``--generate NAME=VALUE`` says, values as in JSON where they are, else text.

    Raises:
        SpecError: another form.
    """
    from json import loads

    from vlmattn.core.errors import SpecError

    found: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name.isidentifier():
            raise SpecError(f"--generate takes NAME=VALUE, got {text!r}")
        try:
            found[name] = loads(value.lower())
        except ValueError:
            found[name] = value
    return found


def print_json(value: Any) -> None:
    """One JSON object on standard output.

    Raises:
        CaptureError: it holds NaN or infinity, which JSON cannot say.
    """
    import json
    import sys

    from vlmattn.core.errors import CaptureError

    plain = "utf" not in (sys.stdout.encoding or "").lower()
    try:
        text = json.dumps(value, ensure_ascii=plain, indent=2, allow_nan=False)
    except ValueError as error:
        raise CaptureError(f"the result holds numbers that JSON cannot say: {error}") from error
    typer.echo(text)
