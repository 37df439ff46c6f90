"""Running a function in two gloo processes."""
import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Callable

import torch.distributed as dist
import torch.multiprocessing as mp
from support.forked import FORKS

WORLD_SIZE = 2


def free_port() -> str:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def _process(rank: int, folder: str, function: Callable) -> None:
    # mmengine gathers results through a folder below the working directory.
    os.chdir(folder)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        # A rank that waits for a call the other does not make is red soon.
        timeout=timedelta(minutes=3),
        rank=rank,
        world_size=WORLD_SIZE)
    try:
        function(rank, Path(folder))
    finally:
        dist.destroy_process_group()


def run_two(function: Callable, folder: Path) -> None:
    """Call ``function(rank, folder)`` in two processes of one group.

    The function must be importable; an exception in it fails the caller.
    """
    mp.start_processes(_process, (str(folder), function), nprocs=WORLD_SIZE,
                       start_method=FORKS.get_start_method())
