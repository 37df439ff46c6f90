"""Arrays in a file of the user's cache, made once and mapped by everybody.

A file holds the bytes of its arrays, an index in JSON and the index's length.
It lies in ``${XDG_CACHE_HOME:-~/.cache}/apa_mm/annotations``, in a folder per
purpose whose older files go when a new one is made. Files that others than
this user or root may write to are never read.
"""
import hashlib
import json
import os
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, Tuple

import numpy as np

from apa_mm.utils.files import check_owner, private_folder, replacing

__all__ = ['Contents', 'cached', 'file_state', 'put']

#: Part of every name; raise it when what is written changes its meaning.
VERSION = 1
LENGTH = 8  # bytes of the index's length, at the end
Contents = Tuple[Dict[str, np.ndarray], Any]


def file_state(path: str) -> list:
    """Return what changes with a file: path, size, time and digest."""
    info, digest = os.stat(path), hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return [os.path.abspath(path), info.st_size, info.st_mtime_ns,
            digest.hexdigest()]


def cached(purpose: Any, state: Any,
           write: Callable[[BinaryIO], Tuple[dict, Any]]) -> Contents:
    """Return the arrays for a purpose, read-only, and what came with them.

    Processes that ask at once wait for the first. What was cut off, has
    another state or another owner is made anew.

    Args:
        purpose (Any): What JSON can write; new files replace others of it.
        state (Any): The same, of the sources that were read.
        write (Callable): Called with an open file where there is none. It
            writes with :func:`put` and returns the places by name, and what
            JSON can write.

    Raises:
        OSError, RuntimeError: If there is no folder to write to.
    """
    folder = private_folder('annotations', _name(purpose))
    path = folder / f'{_name(state)}.arrays'
    try:
        return _map(path)  # without the lock, so that ranks start together
    except (OSError, ValueError):
        pass
    with _locked(folder / 'lock'):
        try:
            return _map(path)
        except (OSError, ValueError):
            pass
        for old in folder.iterdir():  # of killed writers, too
            if old.name != 'lock':
                old.unlink()
        with replacing(path) as temporary:
            with open(temporary, 'wb') as file:
                index = json.dumps(write(file)).encode()
                file.write(index + len(index).to_bytes(LENGTH, 'little'))
        path.chmod(0o600)  # whatever the umask
        return _map(path)


def put(file: BinaryIO, array: np.ndarray) -> list:
    """Append an array of one dimension and return its place."""
    file.write(bytes(-file.tell() % 16))
    place = [file.tell(), array.dtype.str, len(array)]
    file.write(memoryview(array).cast('B') if len(array) else b'')
    return place


def _map(path: Path) -> Contents:
    check_owner(path)
    with open(path, 'rb') as file:
        data = mmap(file.fileno(), 0, access=ACCESS_READ)
    length = int.from_bytes(data[-LENGTH:], 'little')
    places, rest = json.loads(data[-LENGTH - length:-LENGTH])
    return {
        name: np.frombuffer(data, kind, number, start)
        for name, (start, kind, number) in places.items()
    }, rest


def _name(parts: Any) -> str:
    text = json.dumps([VERSION, parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock; its end frees it."""
    try:
        import fcntl
    except ImportError:  # Windows: both write, the last one stays
        yield
        return
    with open(path, 'a') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
