"""``vlmattn serve``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vlmattn.cli.options import Device, Dtype, Kernel, Model, Quiet, Revision, load_model
from vlmattn.core.errors import SpecError

if TYPE_CHECKING:
    from vlmattn.api import Vlm

_MEGA = 2**20


def serve(
    model: Model = "scene",
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is reached from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = 8000,
    uds: Annotated[str | None, typer.Option(help="Listen on this local socket instead, for a proxy.")] = None,
    token_file: Annotated[str | None, typer.Option(help="File with a token that every request has to bear.")] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Web origin whose pages may ask; repeat for more; default: none.")
    ] = None,
    max_requests: Annotated[int, typer.Option(help="Requests in hand at once; further ones get 429.")] = 32,
    timeout: Annotated[float, typer.Option(help="Seconds for an answer, waiting included.")] = 60.0,
    read_timeout: Annotated[float, typer.Option(help="Seconds for a request to arrive.")] = 20.0,
    write_timeout: Annotated[float, typer.Option(help="Seconds that a client may leave its answer unread.")] = 20.0,
    max_body: Annotated[float, typer.Option(help="Largest request, in MiB.")] = 20.0,
    max_pixels: Annotated[int, typer.Option(help="Largest picture, in pixels.")] = 40_000_000,
    max_words: Annotated[int, typer.Option(help="Most words that are told in one answer.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(help="The most that a request may let the model write.")] = 256,
    batch_size: Annotated[int, typer.Option(help="Let so many waiting requests of equal settings run together.")] = 1,
    batch_wait_ms: Annotated[float, typer.Option(help="Wait so long for them.")] = 0.0,
    threads: Annotated[int, typer.Option(help="Threads that decode and draw pictures.")] = 2,
    detector: Annotated[str | None, typer.Option(help="File of 'vlmattn detect MODEL --save': risks go by it.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    revision: Revision = None,
    attention: Kernel = None,
    access_log: Annotated[bool, typer.Option(help="A line for every request, on standard error.")] = False,
    quiet: Quiet = False,
) -> None:
    """Answer questions about pictures over HTTP: POST /v1/ask; see docs/service.md."""
    from vlmattn.service import ServiceOptions
    from vlmattn.service import serve as run
    from vlmattn.service.options import read_token
    from vlmattn.service.running import is_loopback, say

    if uds is not None and (host, port) != ("127.0.0.1", 8000):
        raise SpecError("--uds listens on a local socket: leave out --host and --port")
    options = ServiceOptions(
        max_body=int(max_body * _MEGA),
        max_pixels=max_pixels,
        max_requests=max_requests,
        timeout=timeout,
        read_timeout=read_timeout,
        write_timeout=write_timeout,
        max_words=max_words,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        batch_wait=batch_wait_ms / 1000,
        threads=threads,
        token=None if token_file is None else read_token(token_file),
        allow_origins=tuple(allow_origin or ()),
    )

    def load() -> Vlm:
        vlm = load_model(model, device, dtype, revision, attention)
        vlm.use_detector(detector)
        return vlm

    def started(address: str) -> None:
        if uds is None and not is_loopback(host):
            guarded = "a token is asked for, but not encrypted" if options.token else "without any authentication"
            say(f"vlmattn: caution: {host} may be reached from other machines, {guarded}; put it behind a proxy")
        if not quiet:
            say(f"vlmattn: {model} on {address}")

    run(load, options, host=host, port=port, uds=uds, on_start=started, access_log=access_log)
