"""Find and check the checkpoint that a run goes on from."""
import logging
import re
from pathlib import Path
from typing import List, Optional, Tuple

from mmengine.config import Config
from mmengine.logging import print_log

from apa_mm.preflight.job import InputError
from apa_mm.weights import read_checkpoint

_NUMBERED = re.compile(r'(?:epoch|iter)_(\d+)\.pth$')


def plan_resume(cfg: Config) -> Tuple[Optional[str], Optional[int]]:
    """Return path and seed, None if unknown, of what a job resumes from.

    Raises:
        InputError: If no checkpoint of the folder is whole, or the one to
            resume from is further than the config trains.
    """
    if not cfg.get('resume'):
        return None, None
    path = cfg.get('load_from') or find_checkpoint(cfg.work_dir)
    if path is None or '://' in path:
        return path, None
    meta = read_resumable(path)['meta']
    for key in ('epoch', 'iter'):
        limit = (cfg.get('train_cfg') or {}).get(f'max_{key}s')
        done = (f'checkpoint {path} has done {meta[key]} of train_cfg.max_'
                f'{key}s={limit}; raise that')
        if limit is not None and meta[key] > limit:
            raise InputError(f'{done}, or resume an earlier one')
        if meta[key] == limit:
            print_log(f'{done} to go on: nothing is left to train', 'current',
                      logging.WARNING)
    return path, meta.get('seed')


def find_checkpoint(work_dir: str) -> Optional[str]:
    """Return the checkpoint that a run in a folder goes on from, if any.

    That is what ``last_checkpoint`` names, or, if that is not whole, the
    whole one with the highest number; the log says so.

    Raises:
        InputError: If there are checkpoints, and none is whole.
    """
    folder = Path(work_dir)
    problems: List[str] = []
    named = _named(folder)
    numbered = {path: int(match[1]) for path in folder.glob('*.pth')
                if (match := _NUMBERED.match(path.name)) and path.is_file()}
    newest_first = sorted(numbered, key=numbered.get, reverse=True)
    for path in [*named, *newest_first]:
        try:
            read_resumable(str(path))
        except InputError as error:
            problems.append(str(error))
            continue
        if path not in named:
            print_log(
                f'last_checkpoint of {work_dir} names no whole checkpoint; '
                f'going on from the newest that is whole, {path}',
                'current', logging.WARNING)
        return str(path)
    if problems:
        raise InputError(
            f'none of the checkpoints in {work_dir} can be resumed from; name '
            'another by --resume PATH, or another --work-dir to start anew: '
            + '; '.join(dict.fromkeys(problems)))
    print_log(
        f'{work_dir} holds no checkpoint: training starts from the beginning',
        'current', logging.WARNING)
    return None


def _named(folder: Path) -> List[Path]:
    """Return what ``last_checkpoint`` names, if it names something."""
    mark = folder / 'last_checkpoint'
    text = mark.read_text(errors='replace').strip() if mark.is_file() else ''
    # A folder that was moved or copied still names its old place.
    places = [Path(text), folder / Path(text).name] if text else []
    return [path for path in places if path.is_file()][:1] or places[:1]


def read_resumable(path: str) -> dict:
    """Return the content of a checkpoint that a run can go on from.

    Raises:
        InputError: If it is damaged, or lacks what resuming takes.
    """
    content = read_checkpoint(path).content
    if not (all(isinstance(content.get(key), dict)
                for key in ('meta', 'state_dict', 'message_hub'))
            and all(isinstance(content['meta'].get(key), int)
                    for key in ('epoch', 'iter'))):
        raise InputError(
            f'checkpoint {path} does not say where its training stood; to '
            'train on from its weights set load_from instead of resuming')
    return content
