"""Writing files that are whole or not there, and caches of one user."""
import os
import stat
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Union

WRITABLE = stat.S_IWGRP | stat.S_IWOTH  # by others than the owner
#: Unfinished files of this version and of earlier ones; after an hour nobody
#: is writing them any more.
_UNFINISHED, _STALE_SECONDS = ('.converting-*', '.*.writing*'), 3600


@contextmanager
def replacing(path: Union[str, Path]) -> Iterator[Path]:
    """Yield a temporary name; what is written there then replaces ``path``.

    The temporary file lies in the same folder, which must exist, is synced to
    disk before the move, and is deleted if the block raises.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(folder + '/notes.txt') as temporary:
        ...         _ = temporary.write_text('whole')
        ...     print(Path(folder, 'notes.txt').read_text())
        whole
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(
        prefix='.', suffix=f'.writing{path.suffix}', dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, 'rb') as file:
            os.fsync(file.fileno())
        mask = os.umask(0)  # that of new files, which mkstemp does not use
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Union[str, Path]) -> None:
    """Remove what runs that were killed while writing have left there."""
    for form in _UNFINISHED:
        for left in filter(Path.is_file, Path(folder).glob(form)):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink(missing_ok=True)


def private_folder(*names: str) -> Path:
    """Make ``${XDG_CACHE_HOME:-~/.cache}/apa_mm/<names>`` this user's alone.

    Raises:
        OSError: If it cannot be made, or others may write to it or rename it.
        RuntimeError: If there is no home.
    """
    folder = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_owner(folder.resolve(), sticky=True)
        for name in ('apa_mm', *names):
            folder /= name
            folder.mkdir(mode=0o700, exist_ok=True)
            mine = (hasattr(os, 'geteuid')
                    and folder.lstat().st_uid == os.geteuid())
            if mine and folder.stat().st_mode & WRITABLE:
                folder.chmod(0o700)
            check_owner(folder)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(
            f'a file lies where the folder {folder} should be') from None
    return folder


def check_owner(path: Path, sticky: bool = False) -> None:
    """Raise PermissionError if somebody else may write to the path.

    ``sticky``: folders where all may write, but rename only what is theirs,
    and those of a group that is one user's own, are fine.
    """
    if not hasattr(os, 'geteuid'):  # Windows: the profile is the user's own
        return
    info = path.lstat()
    writable = info.st_mode & WRITABLE
    if sticky and (info.st_mode & stat.S_ISVTX or (
            writable == stat.S_IWGRP and info.st_gid == info.st_uid)):
        writable = 0
    if (info.st_uid not in (0, os.geteuid()) or writable
            or stat.S_ISLNK(info.st_mode)):
        raise PermissionError(
            f'{path} may be written to by others (owner {info.st_uid}, mode '
            f'{stat.filemode(info.st_mode)})')
