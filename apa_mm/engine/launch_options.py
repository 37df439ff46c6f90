"""Turn options of the command line into settings of a config, in place."""
import argparse
import copy
import logging
import os
import os.path as osp
from typing import Optional

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.logging import print_log

from apa_mm.preflight.job import InputError

from .work_dir import check_writable


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options`` to a parser."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=_Settings,
        help='config settings to override, as key=value with dotted keys')


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share to a parser."""
    add = parser.add_argument
    add('--work-dir', help='folder for logs and results')
    add_cfg_options(parser)
    add('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none', help='what started the processes of this job')
    add('--skip-checks', action='store_true',
        help='do not look at config keys, annotations, images and checkpoint')
    # Old launchers give the rank as an option, new ones by environment.
    add('--local_rank', '--local-rank', action=_LocalRank, type=int,
        default=argparse.SUPPRESS, help=argparse.SUPPRESS)


class _Settings(DictAction):
    """mmengine's action, with a sentence for what it cannot read."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        try:
            super().__call__(parser, namespace, values, option_string)
        except (ValueError, AssertionError):
            parser.error(f'{option_string} takes key=value, with brackets '
                         f'closed, but got {" ".join(values)!r}')


class _LocalRank(argparse.Action):

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        os.environ.setdefault('LOCAL_RANK', str(values))


def load_config(path: str, work_dir: Optional[str] = None,
                cfg_options: Optional[dict] = None,
                launcher: str = 'none') -> Config:
    """Read a config file and apply the common options.

    Raises:
        InputError: If the file does not exist, a setting does not fit into
            it, or the work directory cannot be written to.
    """
    if not osp.isfile(path):
        raise InputError(f'config {path} does not exist; name a .py file, '
                         'relative to the current folder')
    cfg = Config.fromfile(path)
    cfg.launcher = launcher
    try:
        # It takes every _delete_ out of what it is given.
        cfg.merge_from_dict(copy.deepcopy(cfg_options or {}))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'--cfg-options {cfg_options} do not fit into {path}: '
            f'{error.args[0]}') from error
    cfg.work_dir = work_dir or cfg.get('work_dir') or osp.join(
        'work_dirs', osp.splitext(osp.basename(path))[0])
    check_writable('--work-dir', cfg.work_dir)
    if is_classification(cfg):
        # What mmpretrain's own script gives the dataloaders.
        for split in ('train', 'val', 'test'):
            loader = cfg.get(f'{split}_dataloader')
            if loader is not None:
                loader.setdefault('pin_memory', torch.cuda.is_available())
                loader.setdefault('persistent_workers',
                                  loader.get('num_workers', 0) > 0)
                loader.setdefault('collate_fn', dict(type='default_collate'))
    return cfg


def is_classification(cfg: Config) -> bool:
    """Return whether a config is one of mmpretrain."""
    return cfg.get('default_scope') == 'mmpretrain'


def set_resume(cfg: Config, resume: Optional[str]) -> None:
    """Resume from the latest checkpoint ('auto') or from a path."""
    if resume is not None:
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume


def set_start(cfg: Config, checkpoint: Optional[str],
              seed: Optional[int]) -> None:
    """Set what :func:`apa_mm.engine.resume.plan_resume` returned."""
    if not cfg.get('resume'):
        return
    cfg.resume, cfg.load_from = checkpoint is not None, checkpoint
    randomness = cfg.get('randomness') or {}
    if randomness.get('seed') is None:
        # Before mmengine builds samplers and workers with one of its own.
        cfg.randomness = dict(randomness, seed=seed)


def set_safe_checkpoints(cfg: Config) -> None:
    """Write checkpoints by ``SafeCheckpointHook`` in place of mmengine's."""
    hooks = dict(cfg.get('default_hooks') or {})
    hook = hooks.get('checkpoint', dict(interval=1))
    if hook is not None and hook.get('type', 'CheckpointHook') in (
            'CheckpointHook', 'mmengine.CheckpointHook'):
        hooks['checkpoint'] = dict(hook, type='apa_mm.SafeCheckpointHook')
        cfg.default_hooks = hooks


def set_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the batch size, from the config's base."""
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise InputError(
            '--auto-scale-lr needs auto_scale_lr.base_batch_size; set it in '
            'the config to the batch size that its learning rate is meant for')
    cfg.auto_scale_lr.enable = True


def set_amp(cfg: Config, requested: bool) -> None:
    """Train in mixed precision if asked to, here or by the config.

    Without a GPU, mmengine's wrapper is replaced by
    :class:`~apa_mm.engine.CPUAmpOptimWrapper`.

    Raises:
        InputError: If the config's optimizer wrapper is of another kind.
    """
    wrapper = cfg.get('optim_wrapper')
    if wrapper is None:
        return
    if requested:
        kind = wrapper.get('type', 'OptimWrapper')
        if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise InputError(
                f'--amp needs optim_wrapper.type OptimWrapper, but got {kind};'
                ' set its mixed precision in the config instead')
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
    if wrapper.get('type') != 'AmpOptimWrapper' or torch.cuda.is_available():
        return
    for name in ('loss_scale', 'dtype', 'use_fsdp'):
        wrapper.pop(name, None)
    wrapper.type = 'apa_mm.engine.CPUAmpOptimWrapper'
    if cfg.get('default_scope') not in ('mmpretrain', 'mmengine'):
        # mmcv's operators, which come behind, know no bfloat16 on the CPU.
        wrapper.setdefault('modules', ['backbone', 'neck'])
    print_log('no CUDA device: mixed precision in bfloat16 for '
              f'{wrapper.get("modules", "the whole model")}', 'current')


def add_hooks(cfg: Config, *names: str) -> None:
    """Add classes of :mod:`apa_mm.engine.hooks` that the config lacks."""
    hooks = list(cfg.get('custom_hooks') or [])
    defaults = list((cfg.get('default_hooks') or {}).values())
    there = ' '.join(str(h.get('type')) for h in hooks + defaults if h)
    cfg.custom_hooks = hooks + [
        dict(type=f'apa_mm.{name}') for name in names if name not in there]


def set_visualization(cfg: Config, show: bool, show_dir: Optional[str],
                      wait_time: float) -> None:
    """Draw predictions by the library's hook, see :func:`launch.test`."""
    classification = is_classification(cfg)
    hooks = cfg.get('default_hooks', {})
    kind = 'VisualizationHook' if classification else 'DetVisualizationHook'
    hook = ConfigDict(hooks.get('visualization') or dict(type=kind))
    if show:
        hook.update(show=True, wait_time=wait_time)
    if classification:
        hook.update(enable=True, out_dir=show_dir, interval=1)
    else:
        hook.draw = True
        if show_dir:
            hook.test_out_dir = show_dir
    cfg.default_hooks = dict(hooks, visualization=hook)


def set_tta(cfg: Config, merge_views: str) -> None:
    """Test with augmentation: the config's, or flipping where it has none.

    Views of a detector's image are merged as its ``test_cfg`` merges boxes.

    Raises:
        InputError: If classified images are to be drawn as well.
    """
    classification = is_classification(cfg)
    drawing = cfg.get('default_hooks', {}).get('visualization') or {}
    if drawing.get('enable'):  # the detectors' hook has no such word
        raise InputError('--tta cannot be joined with --show or --show-dir: '
                         "mmpretrain's visualization hook draws one version "
                         'of an image, not several; leave one of them out')
    if 'tta_model' not in cfg and classification:
        cfg.tta_model = dict(type='mmpretrain.AverageClsScoreTTA')
    elif 'tta_model' not in cfg:
        test_cfg = cfg.model.get('test_cfg') or {}
        test_cfg = test_cfg.get('rcnn') or test_cfg
        nms = test_cfg.get('nms') or dict(type='nms', iou_threshold=0.5)
        cfg.tta_model = dict(type=merge_views, tta_cfg=dict(
            nms=nms, max_per_img=test_cfg.get('max_per_img', 100)))
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_pipeline' not in cfg:
        *steps, pack = dataset.pipeline
        if not classification:
            pack.meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape',
                              'scale_factor', 'flip', 'flip_direction')
        flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
        cfg.tta_pipeline = [
            *steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]
        print_log('the config has no tta_pipeline: flipping the images',
                  'current', logging.WARNING)
    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def check_out(out: Optional[str]) -> None:
    """Refuse a prediction file that is no pickle or cannot be written."""
    if out is not None:
        if not out.endswith(('.pkl', '.pickle')):
            raise InputError(
                f'--out must end in .pkl or .pickle, but got {out}')
        check_writable('--out', osp.dirname(out) or '.')


def dump_metric(cfg: Config, out: str) -> dict:
    """Return the config of the metric that writes predictions to ``out``."""
    kind = ('mmengine.DumpResults' if is_classification(cfg) else
            'mmdet.DumpDetResults')
    return dict(type=kind, out_file_path=out)
