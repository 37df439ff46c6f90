"""Train variants with several seeds and collect what they reach.

A finished run keeps its result with a digest of the config: an interrupted
comparison goes on where it stopped, a changed config is trained anew.
"""
import contextlib
import hashlib
import json
import multiprocessing
import os
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from apa_mm.preflight.job import check_config
from apa_mm.utils.files import replacing

from .launch_options import load_config


@dataclass(frozen=True)
class Run:
    """One config with one seed."""

    config: str
    variant: str  # name of the config file without ending
    seed: int
    folder: str
    digest: str  # SHA-256 of the config's content and the seed

    @property
    def result_file(self) -> Path:
        """Where the finished run keeps its metrics."""
        return Path(self.folder, 'result.json')

    @property
    def log_file(self) -> Path:
        """Where everything goes that the run prints."""
        return Path(self.folder, 'output.txt')


def plan_runs(configs: Sequence[str], num_seeds: int, work_dir: str,
              cfg_options: Optional[dict] = None) -> List[Run]:
    """Check every config and list the runs, all variants of a seed together.

    Variants are called as the config files, seeds are 0 to ``num_seeds - 1``.

    Raises:
        ValueError: If there is no config or seed, two configs have the same
            name, or a config cannot be trained and tested.
    """
    if num_seeds < 1:
        raise ValueError(
            f'the number of seeds must be 1 or more, but got {num_seeds}')
    if not configs:
        raise ValueError('name at least one config to compare')
    variants: Dict[str, Config] = {}
    for path in configs:
        name = Path(path).stem
        if name in variants:
            raise ValueError(f'{variants[name].filename} and {path} have the '
                             'same file name; rename one')
        cfg = variants[name] = load_config(path, work_dir, cfg_options)
        for key in ('train_dataloader', 'test_dataloader', 'test_evaluator'):
            if cfg.get(key) is None:
                raise ValueError(f'{path} has no {key}; a comparison trains '
                                 'every config and then tests it')
        check_config(cfg)
    return [
        Run(str(cfg.filename), name, seed,
            os.path.join(work_dir, name, f'seed_{seed}'), _digest(cfg, seed))
        for seed in range(num_seeds) for name, cfg in variants.items()]


def _digest(cfg: Config, seed: int) -> str:
    """Return the SHA-256 of what decides the outcome of a run."""
    # Some keys do not change what is learned.
    content = {k: v for k, v in cfg.to_dict().items()
               if k not in ('work_dir', 'experiment_name', 'launcher')}
    text = json.dumps([content, seed], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def finished_result(run: Run) -> Optional[dict]:
    """Return the result if the run has finished with the same content."""
    try:
        result = json.loads(run.result_file.read_text('utf-8'))
    except (FileNotFoundError, ValueError):
        return None
    return result if result.get('digest') == run.digest else None


def train_and_test(run: Run, cfg_options: Optional[dict] = None) -> dict:
    """Train one run, test its last state, keep and return the result.

    Raises:
        RuntimeError: If it fails, with the place of its output.
    """
    os.makedirs(run.folder, exist_ok=True)
    run.result_file.unlink(missing_ok=True)
    begin = time.perf_counter()
    with open(run.log_file, 'w', encoding='utf-8') as log, \
            contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            cfg = load_config(run.config, run.folder, cfg_options)
            cfg.randomness = {**cfg.get('randomness', {}), 'seed': run.seed}
            # mmengine tells the runs of one process apart by this name.
            cfg.experiment_name = f'{run.variant}_seed_{run.seed}'
            runner = Runner.from_cfg(cfg)
            runner.train()
            metrics = runner.test()
        except Exception as error:
            traceback.print_exc(file=log)
            # Not every exception can be sent to another process.
            raise RuntimeError(f'{run.variant} with seed {run.seed} failed: '
                               f'{type(error).__name__}: {error}; its output '
                               f'is in {run.log_file}') from None
    result = dict(digest=run.digest, config=run.config, seed=run.seed,
                  seconds=time.perf_counter() - begin,
                  metrics={k: float(v) for k, v in metrics.items()})
    with replacing(run.result_file) as part:
        part.write_text(json.dumps(result, indent=2), encoding='utf-8')
    return result


def run_all(runs: Sequence[Run], *, workers: int = 1,
            cfg_options: Optional[dict] = None,
            report: Callable[[str], None] = lambda line: None) -> List[dict]:
    """Do every run that is not finished and return all results, in order.

    ``workers`` are processes that share the cores evenly, 1 for none;
    ``report`` gets a line of progress after every run.

    Raises:
        ValueError: If ``workers`` is less than 1.
        RuntimeError: If a run fails; those that have finished are kept.
    """
    if workers < 1:
        raise ValueError(f'workers must be 1 or more, but got {workers}')
    results = {run: finished_result(run) for run in runs}
    todo = [run for run in runs if results[run] is None]
    if len(todo) < len(runs):
        report(f'{len(runs) - len(todo)} of {len(runs)} runs have finished '
               'before with the same config and are kept')
    begin = time.perf_counter()
    task = partial(train_and_test, cfg_options=cfg_options)
    for done, (run, result) in enumerate(
            _results(task, todo, min(workers, len(todo))), 1):
        results[run] = result
        metrics = result['metrics']
        name = 'accuracy/top1' if 'accuracy/top1' in metrics else next(
            iter(metrics), None)
        shown = 'no metric' if name is None else f'{name} {metrics[name]:.2f}'
        left = (len(todo) - done) * (time.perf_counter() - begin) / done
        report(f'[{done}/{len(todo)}] {run.variant}, seed {run.seed}: {shown} '
               f'in {result["seconds"]:.0f} s, about {left / 60:.1f} min left')
    return [results[run] for run in runs]


def _results(task: Callable[[Run], dict], runs: Sequence[Run],
             workers: int) -> Iterator[Tuple[Run, dict]]:
    """Yield runs with their results as they come."""
    if workers <= 1:
        for run in runs:
            yield run, task(run)
        return
    # Forked processes would share the locks of libraries that use threads.
    with ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context('spawn'),
        initializer=torch.set_num_threads,
        initargs=(max(available_cores() // workers, 1), )) as pool:
        futures = {pool.submit(task, run): run for run in runs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
