"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from vlmattn.api import Vlm

Model = Annotated[str, typer.Option("--model", "-m", help="'scene', a hub name, or a folder.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; default: the first GPU, else the CPU.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16; default: as the checkpoint says.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
Kernel = Annotated[str | None, typer.Option("--attention", help="sdpa, eager, flash_attention_2, flex_attention.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="How much the model may write.")]
Layers = Annotated[str | None, typer.Option(help="A preset ('middle', 'vicrop' …), or numbers: '1', '4-8', '1,3,-1'.")]
Heads = Annotated[str | None, typer.Option(help="Head numbers: '0,5' or '0-3'; default: all.")]


def load_model(
    model: str, device: str | None, dtype: str | None, revision: str | None = None, attention: str | None = None
) -> Vlm:
    """The model an option names; a bar shows the loading of large ones on a terminal."""
    import sys

    from transformers.utils import logging

    from vlmattn.api import load

    if model == "scene" or not sys.stderr.isatty():
        logging.disable_progress_bar()
    return load(model, device=device, dtype=dtype, revision=revision, attn_implementation=attention)


def numbers(text: str | None, what: str) -> list[int] | None:
    """``'1,4-6,-1'`` as [1, 4, 5, 6, -1]; None stays None.

    Raises:
        SpecError: not numbers.
    """
    from vlmattn.core.errors import SpecError

    if text is None:
        return None
    result: list[int] = []
    for part in text.replace(" ", "").split(","):
        first, dash, last = part.rpartition("-") if not part.startswith("-") else ("", "", part)
        try:
            result += list(range(int(first), int(last) + 1)) if dash and first else [int(part)]
        except ValueError:
            raise SpecError(f"{what} must be numbers such as '3', '4-8' or '1,3'; got {text!r}") from None
    return result


def layer_choice(text: str | None) -> str | list[int] | None:
    """A preset's name, or numbers."""
    if text is None or not any(c.isdigit() for c in text):
        return text
    return numbers(text, "--layers")


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    import json

    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))
