"""Checks before a job starts, so that bad input leaves nothing behind.

Both launchers call :func:`check_config` before the Runner is built, that is
before a work directory exists. An annotation file is parsed once more than
without the checks, which is nearly all of their cost: 234 MB (254,000
annotations with polygons, a fifth of LVIS v1's training set) took 13 s and
1.5 GB of memory on one busy core. The log says how long it took;
``--skip-checks`` leaves it out.
"""
import json
import logging
import os
import os.path as osp
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import find_latest_checkpoint

from apa_mm.data.annotation_checks import check_annotations, show
from apa_mm.preflight.config_keys import check_keys
from apa_mm.data.dataset_files import SPLITS, DataFile, find_data_files
from apa_mm.preflight.loss_checks import loss_problems
from apa_mm.weights import CheckpointError, read_checkpoint
from apa_mm.weights.load_check import state_dict_of

__all__ = ['InputError', 'check_checkpoint', 'check_config', 'is_rank_0']

#: What launchers call the process's rank, before torch.distributed starts.
_RANK_VARIABLES = dict(
    pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')


class InputError(ValueError):
    """Input that a job cannot run with; one sentence per problem."""


def is_rank_0(cfg: Config) -> bool:
    """Return whether this process is the first one of the job."""
    variable = _RANK_VARIABLES.get(cfg.get('launcher', 'none'))
    return variable is None or os.environ.get(variable, '0') == '0'


def check_config(cfg: Config, splits: Sequence[str] = SPLITS) -> None:
    """Check a job's config, its annotation files and its images.

    Looks at top-level keys (:mod:`~apa_mm.preflight.config_keys`), at every
    annotation file and image folder of the given splits
    (:mod:`~apa_mm.data.annotation_checks`), at whether the detector's
    ``num_classes`` fits the data, and at the places and needs of our losses
    (:mod:`~apa_mm.preflight.loss_checks`). Only rank 0 reads files.

    Args:
        cfg (Config): The config of a job.
        splits (Sequence[str]): Which of 'train', 'val' and 'test' will run.

    Raises:
        InputError: If anything is wrong; it lists every problem with
            what was got, what was expected and how to mend.
    """
    keys = check_keys(cfg)
    problems = keys.problems + loss_problems(cfg, 'train' in splits)
    if is_rank_0(cfg):
        for warning in keys.warnings:
            _log(warning, level=logging.WARNING)
        problems += _data_problems(cfg, splits)
    if problems:
        raise InputError('\n'.join(problems))


def _log(message: str, level: int = logging.INFO) -> None:
    print_log(message, logger='current', level=level)


def _data_problems(cfg: Config, splits: Sequence[str]) -> List[str]:
    """Check every class list, and every file once per way of reading it."""
    heads = dict(_head_sizes(cfg))
    files = find_data_files(cfg, splits)
    found = [
        problem for item in files
        if item.layout is not None and item.classes is not None
        for problem in _size_problems(item, len(item.classes), heads)
    ]
    by_path: Dict[str, List[DataFile]] = {}
    for item in files:
        by_path.setdefault(osp.normpath(item.path), []).append(item)
    for readers in by_path.values():
        found += _file_problems(readers, heads)
    # One dataset may serve two splits.
    return list(dict.fromkeys(found))


def _file_problems(readers: List[DataFile],
                   heads: Dict[str, int]) -> List[str]:
    path, begin = readers[0].path, time.perf_counter()
    where = _where(readers[0])
    if readers[0].layout == 'folder':
        return [] if osp.isdir(path) else [
            f'{where}: the folder does not exist; set data_root to where the '
            'images are'
        ]
    if not osp.isfile(path):
        return [
            f'{where}: the annotation file does not exist; set data_root and '
            'ann_file to where it is'
        ]
    if all(reader.layout is None for reader in readers):
        return []
    try:
        with open(path, encoding='utf-8') as file:
            annotation = json.load(file)
    except ValueError as error:
        return [
            f'{where}: the file is not JSON ({error}); it may be cut off or '
            'another file, get it again'
        ]
    problems = [
        problem for reader in dict.fromkeys(readers)
        if reader.layout is not None
        for problem in _reader_problems(reader, annotation, heads)
    ]
    _log(f'checked {path} in {time.perf_counter() - begin:.1f} s '
         '(--skip-checks leaves this out)')
    return problems


def _where(reader: DataFile) -> str:
    return f'{reader.path} ({reader.split} {reader.reader})'


def _reader_problems(reader: DataFile, annotation: Any,
                     heads: Dict[str, int]) -> List[str]:
    report = check_annotations(
        annotation,
        reader.image_folder,
        layout=reader.layout,
        classes=reader.classes,
        lvis_metric=reader.lvis_metric,
        masks=reader.masks,
        need_annotations=reader.labelled)
    if reader.split == 'train' and report.unused_categories:
        unused = report.unused_categories
        _log(
            f'{len(unused)} of {report.counts["categories"]} categories have '
            f'no annotation in {reader.path} and cannot be learned: '
            f'{show(unused)}',
            level=logging.WARNING)
    problems = [f'{_where(reader)}: {item}' for item in report.problems]
    if not problems and reader.classes is None:
        problems += _size_problems(reader, report.counts['categories'], heads)
    return problems


def _size_problems(reader: DataFile, number: int,
                   heads: Dict[str, int]) -> List[str]:
    source = ("the dataset's metainfo has {} classes"
              if reader.classes is not None else 'it has {} categories')
    return [
        f'{_where(reader)}: {source.format(number)}, but {name} is {size}; '
        f"set num_classes={number} or the dataset's "
        'metainfo=dict(classes=...)' for name, size in heads.items()
        if size != number
    ]


def _head_sizes(cfg: Config) -> Iterator[Tuple[str, int]]:
    """Yield name and value of ``num_classes`` of a detector's heads."""
    model = cfg.get('model') or {}
    if cfg.get('default_scope') != 'mmdet' or not isinstance(model, dict):
        return
    if 'language_model' in model:
        # GLIP and Grounding DINO read classes from text; theirs is a limit.
        return
    name, parent = 'model', model
    if isinstance(model.get('roi_head'), dict):
        # A box head beside a roi_head belongs to the proposals.
        name, parent = 'model.roi_head', model['roi_head']
    for kind in ('bbox_head', 'mask_head'):
        heads = parent.get(kind)
        several = isinstance(heads, (list, tuple))
        for index, head in enumerate(heads if several else [heads]):
            size = head.get('num_classes') if isinstance(head, dict) else None
            if isinstance(size, int):
                place = f'[{index}]' if several else ''
                yield f'{name}.{kind}{place}.num_classes', size


def check_checkpoint(cfg: Config) -> None:
    """Check that the file to load or resume from is there and readable.

    Args:
        cfg (Config): A config whose ``load_from``, ``resume`` and
            ``work_dir`` are final. URLs are not looked at.

    Raises:
        InputError: If the file does not exist, or holds objects that
            no weights are made of.
    """
    path = cfg.get('load_from')
    if path is None and cfg.get('resume'):
        path = _latest_checkpoint(cfg)
    if path is None or '://' in path or not is_rank_0(cfg):
        return
    path = osp.expanduser(path)
    if not osp.isfile(path):
        raise InputError(
            f'checkpoint {path} does not exist; name a .pth file, or train '
            'first')
    try:
        state_dict_of(read_checkpoint(path, map_location='meta').content)
    except CheckpointError as error:
        raise InputError(str(error)) from None


def _latest_checkpoint(cfg: Config) -> Optional[str]:
    work_dir = cfg.get('work_dir')
    if work_dir is None or not osp.isfile(osp.join(work_dir,
                                                   'last_checkpoint')):
        return None
    return find_latest_checkpoint(work_dir)
