"""The demo's iteration under OpenMP's ways of waiting, alone and beside load.

Threads that wait for others spin unless told otherwise. Beside busy processes
they take the cores from the threads they wait for. Each run is a fresh process
of two threads on a few of the demo's images; "theirs" is torch's default.
"""
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Iterator, List

from demo import DigitsLVISSettings, make_digits_lvis

TITLE = "The demo's iteration by OpenMP's way of waiting, two threads"
ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/demo/mask-rcnn_apa-seresnet18_fpn_gol_digits-lvis.py'
OPTIONS = ('train_dataloader.batch_size=2', 'train_cfg.val_begin=1000000',
           'default_hooks.logger.interval=1', 'log_processor.window_size=1',
           'custom_hooks.0.allow_empty=True')
WAYS = dict(
    PASSIVE=dict(OMP_WAIT_POLICY='PASSIVE'),
    SPINCOUNT_1000=dict(GOMP_SPINCOUNT='1000'),
    SPINCOUNT_10000=dict(GOMP_SPINCOUNT='10000'))
WARM_UP = 3


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Keep so many processes busy beside the block."""
    others = [
        subprocess.Popen([sys.executable, '-c', 'while True: pass'])
        for _ in range(number)
    ]
    try:
        yield
    finally:
        for process in others:
            process.kill()
            process.wait()


def seconds(folder: str, iterations: int, way: dict) -> List[float]:
    """Return the seconds of each iteration after the warm-up."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(('OMP_', 'GOMP_'))}
    env.update(OMP_NUM_THREADS='2', PYTHONPATH=str(ROOT), **way)
    with TemporaryDirectory(dir=folder) as work:
        done = subprocess.run(
            [sys.executable, ROOT / 'tools/train.py', CONFIG, '--skip-checks',
             '--work-dir', work, '--cfg-options', *OPTIONS,
             f'train_cfg.max_iters={WARM_UP + iterations}'],
            cwd=folder, env=env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f'{way} failed:\n{done.stderr}')
        log, = Path(work).glob('*/vis_data/scalars.json')
        rows = map(json.loads, log.read_text().splitlines())
        return [row['time'] for row in rows if 'time' in row][WARM_UP:]


def run(repeats: int = 5, quick: bool = False) -> List[dict]:
    """Measure alone and beside as many busy processes as there are cores.

    Args:
        repeats (int): Runs per way, in turns, of 8 iterations each.
        quick (bool): One run of 2 iterations per way.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio' (theirs over
        ours), 'unit' and 'note'; medians over all iterations.
    """
    rows = []
    repeats, iterations = (1, 2) if quick else (repeats, 8)
    with TemporaryDirectory() as folder:
        make_digits_lvis(
            f'{folder}/data/digits_lvis',
            DigitsLVISSettings(num_train=30, num_val=30, exhaustive=True))
        for load in (0, os.cpu_count()):
            times: dict = {name: [] for name in ('default', *WAYS)}
            with busy(load):
                for _ in range(repeats):
                    for name, kept in times.items():
                        kept += seconds(folder, iterations,
                                        WAYS.get(name, {}))
            theirs = median(times['default'])
            rows += [
                dict(case=f'{name}, {load} busy processes beside it',
                     ours=median(times[name]), theirs=theirs,
                     ratio=theirs / median(times[name]), unit='s')
                for name in WAYS
            ]
    return rows
