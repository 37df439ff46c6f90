"""Python processes that start at once, for tests of what a script does.

They are forked from one that has imported the libraries of others. What a
script finds in a new interpreter, it finds here: its own arguments, folder,
environment and streams, and none of our modules. Which imports a script needs
is not seen: tests of that start an interpreter.
"""
import atexit
import multiprocessing as mp
import os
import runpy
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Optional, Sequence

FORKS = mp.get_context('forkserver')
FORKS.set_forkserver_preload(['support.libraries'])


class Script:
    """A started script; :meth:`wait` returns what it left."""

    def __init__(self, words: Sequence, cwd: Optional[str] = None,
                 env: Optional[dict] = None) -> None:
        self.words = [str(word) for word in words]
        self.folder = tempfile.TemporaryDirectory()
        self.streams = [Path(self.folder.name, n) for n in ('out', 'err')]
        self.process = FORKS.Process(
            target=_run,
            args=(self.words, str(cwd or os.getcwd()),
                  dict(os.environ if env is None else env), self.streams))
        self.process.start()

    def wait(self, timeout: Optional[float] = None
             ) -> subprocess.CompletedProcess:
        """Return code and texts; end the process if that takes too long."""
        with self.folder:
            try:
                self.process.join(timeout)
            finally:
                self.process.kill()
                self.process.join()
            out, err = (path.read_text() for path in self.streams)
            return subprocess.CompletedProcess(
                self.words, self.process.exitcode, out, err)


def run(words: Sequence, **kwargs) -> subprocess.CompletedProcess:
    """Run ``script.py`` or ``-c code`` with its arguments to the end."""
    return Script(words, **kwargs).wait()


def _run(words, cwd, env, streams):
    ours = [name for name in sys.modules if name.split('.')[0] == 'apa_mm']
    assert not ours, ours
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, path in enumerate(streams, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, number)
        os.close(file)
    # Not the server's own way to start processes.
    mp.set_start_method(None, force=True)
    code = words[0] == '-c'
    sys.argv = ['-c', *words[2:]] if code else words
    sys.path[:0] = [
        '' if code else str(Path(words[0]).resolve().parent),
        *env.get('PYTHONPATH', '').split(os.pathsep)
    ]
    try:
        if code:
            main = sys.modules['__main__'] = types.ModuleType('__main__')
            exec(compile(words[1], '<string>', 'exec'), vars(main))
        else:
            runpy.run_path(words[0], run_name='__main__')
    finally:
        # multiprocessing ends a process without them.
        atexit._run_exitfuncs()
