"""Writing files that are whole or not there."""
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Union

__all__ = ['replacing']


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
