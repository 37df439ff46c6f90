"""Arrays in a file of the user's cache, made once and mapped by everybody.

A file holds the bytes of its arrays, an index in JSON and the index's length.
It lies in ``${XDG_CACHE_HOME:-~/.cache}/apa_mm/annotations``, in a folder per
source and purpose whose older files go when a new one is made, as do folders
of sources that are gone. Files that others than this user or root may write to
are never read.
"""
import hashlib
import json
import os
import shutil
import time
from contextlib import contextmanager, suppress
from functools import cached_property
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, Tuple

import numpy as np

from apa_mm.utils.files import check_owner, private_folder, replacing
from apa_mm.version import __version__

#: Part of every name; raise it when what is written changes its meaning.
VERSION = (__version__, 2)
LENGTH = 8  # bytes of the index's length, at the end
#: Nanoseconds in which two writes may get one time stamp, as FAT's do.
TICK = 2_000_000_000
Contents = Tuple[Dict[str, np.ndarray], Any]


class Source:
    """A file that is read by the first who needs what is in it.

    ``state`` is :func:`file_state`, None where that cannot be noted.
    """

    def __init__(self, path: str, read: Callable[[str], Any]) -> None:
        self.path, self.read = path, read
        try:
            self.state = file_state(path)
        except (OSError, RuntimeError):
            self.state = None

    @cached_property
    def content(self) -> Any:
        """What ``read`` makes of the file; OSError if that changes then."""
        content = self.read(self.path)
        if self.state and file_state(self.path) != self.state:
            raise OSError(f'{self.path} changed while it was read')
        return content

    def cached(self, purpose: Any, write: Callable) -> Contents:
        """Do as :func:`cached` with the file's state."""
        return cached(purpose, self.state or file_state(self.path), write)


def file_state(path: str) -> list:
    """Return what changes with a file: path, size, time and digest.

    The digest (two seconds per gigabyte) is noted, and made again where
    device, inode, size or a time differs, or where the file was so fresh that
    a later change could have left all of them as they were.

    Raises:
        OSError, RuntimeError: If there is no such file or no folder for notes.
    """
    path, begin = os.path.abspath(path), time.time_ns()
    note = private_folder('annotations', _name(path)) / 'state'
    info = os.stat(path)
    stamp = [info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns,
             info.st_ctime_ns]
    known, state = _noted(note)
    if known == stamp:
        return state
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 24):
            digest.update(block)
    state = [path, *stamp[2:4], digest.hexdigest()]
    if max(stamp[3:]) + TICK < begin:
        with replacing(note) as temporary:
            temporary.write_text(json.dumps([stamp, state]))
        note.chmod(0o600)
    return state


def _noted(note: Path) -> list:
    """Return a stamp and the state that belongs to it, None twice if none."""
    try:
        check_owner(note)
        return json.loads(note.read_text())
    except (OSError, ValueError):
        return [None, None]


def cached(purpose: Any, state: list,
           write: Callable[[BinaryIO], Tuple[dict, Any]]) -> Contents:
    """Return the arrays for a purpose, read-only, and what came with them.

    Processes that ask at once wait for the first. What was cut off, has
    another state or another owner is made anew.

    ``purpose`` is what JSON can write; new files replace others of it.
    ``state`` is that of :func:`file_state`. Where there are no arrays,
    ``write`` gets an open file: it writes with :func:`put` from 0 on, and
    returns the places by name and what JSON can write.

    Raises:
        OSError, RuntimeError: If there is no folder to write to.
    """
    folder = private_folder('annotations', _name(state[0]), _name(purpose))
    path = folder / f'{_name(state)}.arrays'
    with suppress(OSError, ValueError):
        return _map(path)  # without the lock, so that ranks start together
    with _locked(folder / 'lock'):
        with suppress(OSError, ValueError):
            return _map(path)
        for note in folder.parents[1].glob('*/state'):
            state = _noted(note)[1]
            if state and not os.path.exists(state[0]):
                shutil.rmtree(note.parent, ignore_errors=True)
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
    arrays = {name: np.frombuffer(data, kind, number, start)
              for name, (start, kind, number) in places.items()}
    return arrays, rest


def _name(parts: Any) -> str:
    text = json.dumps([VERSION, parts], default=str)
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
