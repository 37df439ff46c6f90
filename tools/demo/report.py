"""What the demo reports: metrics.json and a table for the terminal."""
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Dict

from mmengine.config import Config

from apa_mm.utils.files import replacing
from apa_mm.utils.tables import text_table

__all__ = ['format_table', 'read_metrics', 'run_record', 'write_json']

#: Columns of the table: heading and metric of ``apa_mm.LVISMetric``, 'all'
#: for boxes where every absent class is known to be absent.
COLUMNS = {
    f'{kind} {name}': f'{metric}_{name}'
    for kind, metric in (('box', 'lvis/bbox'), ('mask', 'lvis/segm'),
                         ('all', 'exhaustive/bbox'))
    for name in ('AP', 'APr', 'APc', 'APf')
}
LIBRARIES = ('torch', 'mmengine', 'mmcv', 'mmdet', 'numpy', 'hotcoco',
             'opencv-python')


def read_metrics(eval_dir: str) -> Dict[str, float]:
    """Read the metrics that a test run of mmengine's Runner has logged.

    Args:
        eval_dir (str): Work dir of exactly one test run.

    Returns:
        dict[str, float]: AP, APr, APc, APf and the rest, of boxes and masks.

    Raises:
        ValueError: If there is not exactly one finished test run.
    """
    files = list(Path(eval_dir).glob('*/*.json'))
    if len(files) != 1:
        raise ValueError(
            f'{eval_dir} must hold the log of one finished test run '
            f'(<time>/<time>.json), but has {len(files)}; run tools/test.py '
            'with this --work-dir, new and empty')
    logged = json.loads(files[0].read_text())
    return {
        name: value
        for name, value in logged.items()
        if name.startswith(('lvis/', 'exhaustive/'))
    }


def run_record(cfg: Config, metrics: Dict[str, float], num_pairs: int,
               seconds: Dict[str, float]) -> dict:
    """Gather everything worth keeping about one training run.

    Args:
        cfg (Config): The run's config.
        metrics (dict[str, float]): As from :func:`read_metrics`.
        num_pairs (int): (kappa, lambda) pairs of the model.
        seconds (dict[str, float]): Wall-clock seconds of every phase.

    Returns:
        dict: Ready for JSON.
    """
    return dict(
        config=Path(cfg.filename).name,
        metrics=metrics,
        seed=cfg.randomness.seed,
        iterations=cfg.train_cfg.max_iters,
        num_kappa_lambda_pairs=num_pairs,
        seconds={name: round(value, 1) for name, value in seconds.items()},
        cpu_cores=_cores(),
        versions=_versions())


def format_table(runs: Dict[str, dict]) -> str:
    """Format the box and mask AP of some runs, and the time they took.

    Args:
        runs (dict[str, dict]): Records as from :func:`run_record`, by name.

    Returns:
        str: Two small tables, one line per run; metrics that a run lacks
        show as a dash.

    Example:
        >>> run = dict(metrics={'lvis/bbox_AP': 0.5}, seconds=dict(train=9.0))
        >>> format_table({'mine': run}).splitlines()[2].split()[:5]
        ['|', 'mine', '|', '0.500', '|']
    """
    metrics = []
    phases = list(
        dict.fromkeys(phase for run in runs.values()
                      for phase in run['seconds']))
    seconds = []
    for name, run in runs.items():
        metrics.append([name] + [
            f'{run["metrics"][key]:.3f}' if key in run['metrics'] else '-'
            for key in COLUMNS.values()
        ])
        spent = run['seconds']
        seconds.append([name] + [
            f'{spent[phase]:.0f}' if phase in spent else '-'
            for phase in phases
        ] + [f'{sum(spent.values()):.0f}'])
    return (text_table(['run', *COLUMNS], metrics) + '\n\n'
            + text_table(['seconds', *phases, 'all'], seconds))


def write_json(data: dict, out_file: str) -> None:
    """Write JSON so that the file is whole or not there.

    Args:
        data (dict): What to write.
        out_file (str): File to write.
    """
    text = json.dumps(data, indent=2) + '\n'
    with replacing(out_file) as partial:
        partial.write_text(text)


def _cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions() -> Dict[str, str]:
    """Return the versions of what the result depends on."""
    from apa_mm import __version__
    found = dict(python=platform.python_version(), apa_mm=__version__)
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
