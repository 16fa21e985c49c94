"""``vlmattn app``."""

from __future__ import annotations

from typing import Annotated

import typer

from vlmattn.cli.options import Device, Dtype, Kernel, Quiet, load_model


def app(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="'scene' or another in the box, a hub name, or a folder; repeat to choose."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine's own let others in.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 7860,
    share: Annotated[bool, typer.Option("--share", help="Also at a public address, through Gradio's servers.")] = False,
    device: Device = None,
    dtype: Dtype = None,
    attention: Kernel = None,
    quiet: Quiet = False,
) -> None:
    """Open a page: drop a picture, ask, click the words of the answer. Ends with Ctrl-C."""
    from vlmattn.app import Models, Server
    from vlmattn.app.serving import is_local

    models = Models(model or ["scene"], lambda name: load_model(name, device, dtype, None, attention))
    with Server(models, host=host, port=port, share=share) as server:
        if share or not is_local(host):
            _caution("others can reach this page, use the model and upload pictures; there is no login")
        if not quiet:
            typer.echo(f"vlmattn app: {server.url}  (Ctrl-C ends it)")
        if share:
            typer.echo(f"vlmattn app: {server.public_url()}")
        server.wait()


def _caution(text: str) -> None:
    typer.echo(f"vlmattn: caution: {text}", err=True)
