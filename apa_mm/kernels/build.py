"""Compiling the C++ of ``csrc``, and the folder that keeps the result.

The library is compiled at first use with the system's C++ compiler (6 s on
one core) into ``${XDG_CACHE_HOME:-~/.cache}/apa_mm/native``, under a name made
of the sources, the flags and the processor, and loaded from there afterwards.
A digest lies beside it: a file that is not what was written is compiled again.
The folder is used only if nobody but its owner, this user or root, may write
to it. Without a library the eager form is used.
"""
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List, Optional

from apa_mm.utils.files import check_owner, private_folder, replacing

SOURCES = Path(__file__).parent / 'csrc'
FLAGS = ('-O3', '-std=c++17', '-fPIC', '-shared', '-fopenmp',
         '-fno-math-errno', '-fno-trapping-math', '-ffp-contract=fast')
#: Tried in order; the second for compilers that do not know the first.
TUNING = (('-march=native', '-mprefer-vector-width=512'),
          ('-march=native', ), ())
TIMEOUT = 300  # seconds for one run of the compiler; 6 are usual
MESSAGE_LENGTH = 2000  # so much of what a failing compiler says is repeated


class BuildError(Exception):
    """Why there is no library, in one sentence."""


@functools.lru_cache(maxsize=None)
def library() -> Optional[ctypes.CDLL]:
    """Return the compiled library, built if need be; None with a warning."""
    try:
        return _load()
    except (BuildError, OSError, RuntimeError) as error:
        _warn(f'APA and AGLU run in their eager form on the CPU, which is '
              f'slower and takes more memory: {error}')
        return None


def _load() -> ctypes.CDLL:
    name = f'apa_cpu-{_fingerprint()}.so'
    try:
        folder = private_folder('native')
        if not _is_whole(folder / name):
            _build(folder / name)
        return ctypes.CDLL(str(folder / name))
    except (OSError, RuntimeError) as error:  # RuntimeError: no home
        if _compiler() is None:
            raise
        _warn('the compiled form of APA and AGLU cannot be kept and is made '
              f'anew by every process: {error}; set XDG_CACHE_HOME to a '
              'folder of yours')
    with tempfile.TemporaryDirectory(prefix='apa_mm-') as folder:
        _build(Path(folder, name))
        return ctypes.CDLL(str(Path(folder, name)))


def _is_whole(target: Path) -> bool:
    """Return whether the library is there, as it was written."""
    try:
        check_owner(target)
        return _digest(target) == target.with_suffix('.sha256').read_text()
    except (OSError, UnicodeDecodeError):
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _compiler() -> Optional[str]:
    return shutil.which(os.environ.get('CXX') or 'c++') or shutil.which('g++')


def _build(target: Path) -> None:
    """Compile the library and write its digest beside it."""
    compiler = _compiler()
    if compiler is None:
        raise BuildError('no C++ compiler (set CXX, or install g++)')
    with replacing(target) as temporary:
        for tuning in TUNING:
            output = _run([
                compiler, *FLAGS, *tuning,
                *map(str, sorted(SOURCES.glob('*.cpp'))), '-o',
                str(temporary)
            ])
            if output is None:
                break
        else:
            raise BuildError(f'{compiler} failed: {output}')
        digest = _digest(temporary)
    target.chmod(0o700)  # whatever the umask
    with replacing(target.with_suffix('.sha256')) as temporary:
        temporary.write_text(digest)


def _run(command: List[str]) -> Optional[str]:
    """Return what a failing compiler says, or None if it succeeds.

    Its output goes to a file and its children end with it: a pipe that one
    of them keeps open would be waited for for ever.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True)
        try:
            if process.wait(TIMEOUT) == 0:
                return None
        except subprocess.TimeoutExpired:
            raise BuildError(f'{command[0]} did not end within {TIMEOUT} '
                             'seconds') from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        return log.read(MESSAGE_LENGTH).decode(errors='replace')


def _fingerprint() -> str:
    """Return a name for what the library must fit: sources and processor."""
    features = platform.processor()
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.is_file():
        features = ''.join(sorted({
            line for line in cpuinfo.read_text(errors='replace').splitlines()
            if line.startswith(('flags', 'Features', 'model name'))
        }))
    sources = [p.read_text() for p in sorted(SOURCES.iterdir()) if p.is_file()]
    parts = (*sources, features, platform.machine(), platform.system(),
             repr((FLAGS, TUNING)))
    return hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:16]


def _warn(message: str) -> None:
    """Log a warning, in the training log if there is one."""
    mmengine = sys.modules.get('mmengine.logging')
    if mmengine is None:
        logging.getLogger(__name__).warning(message)
    else:
        mmengine.print_log(message, logger='current', level=logging.WARNING)
