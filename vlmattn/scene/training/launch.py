"""Starts the processes of a training as accelerate expects them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
from torch.multiprocessing.spawn import spawn


def launch(train: Callable[..., None], *arguments: Any, processes: int) -> None:
    """Call ``train(*arguments, cpu=…)`` on one GPU if there is one, else on several processes of one thread each."""
    gpu = torch.cuda.is_available()
    world = 1 if gpu else processes
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_process, (world, port, train, arguments, not gpu), nprocs=world)


def _process(
    rank: int, world: int, port: int, train: Callable[..., None], arguments: tuple[Any, ...], cpu: bool
) -> None:
    torch.set_num_threads(1)
    if world > 1:  # as accelerate's own launcher sets them
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
        }
    train(*arguments, cpu=cpu)
