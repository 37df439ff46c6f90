"""Folders that a job writes to: looked at early, used by one job at a time."""
import contextlib
import logging
import os
from pathlib import Path
from typing import Iterator

from mmengine.dist import is_main_process
from mmengine.logging import print_log

from apa_mm.preflight.job import InputError

try:
    import fcntl
except ImportError:  # not on Windows; two runs are not noticed there
    fcntl = None


def check_writable(option: str, path: str) -> None:
    """Refuse a folder that cannot be made or written to; makes nothing.

    Raises:
        InputError: If ``path``, given as ``option``, or the nearest folder
            above it that exists may not be written to.
    """
    nearest = Path(path).expanduser().absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = 'not writable for you' if nearest.is_dir() else 'a file'
        raise InputError(f'{option} {path} cannot be written to: {nearest} is '
                         f'{why}; name another folder')


@contextlib.contextmanager
def occupied(folder: str) -> Iterator[None]:
    """Make a folder and hold it during the block; warn if another run does."""
    if not is_main_process():
        yield
        return
    os.makedirs(folder, exist_ok=True)
    # The lock goes with the process, even if that is killed.
    with open(os.path.join(folder, '.lock'), 'a', encoding='utf-8') as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print_log(
                f'another run trains in {folder}: the two overwrite each '
                "other's checkpoints; give each a --work-dir of its own",
                'current', logging.WARNING)
        except OSError:
            pass  # A file system without locks.
        yield
