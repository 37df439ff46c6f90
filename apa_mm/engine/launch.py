"""What ``tools/train.py`` and ``tools/test.py`` call, for either library."""
import os.path as osp
from typing import Optional, Sequence

import torch
from mmengine.config import Config
from mmengine.registry import METRICS, RUNNERS
from mmengine.runner import Runner

from apa_mm.preflight.job import check_checkpoint, check_config

from . import launch_options as options
from .distributed import on_rank_0, prepare_distributed
from .resume import plan_resume
from .work_dir import check_writable, occupied


def train(config: str, *, work_dir: Optional[str] = None, amp: bool = False,
          auto_scale_lr: bool = False, resume: Optional[str] = None,
          cfg_options: Optional[dict] = None, launcher: str = 'none',
          skip_checks: bool = False) -> torch.nn.Module:
    """Train by a config and return the model.

    Args:
        config (str): Path of the config file.
        work_dir (str, optional): Folder for logs and checkpoints; else the
            config's own, or ``work_dirs/<config name>``.
        amp (bool): Mixed precision; bfloat16 without a GPU.
        auto_scale_lr (bool): Scale the learning rate by the batch size.
        resume (str, optional): 'auto' for the newest whole checkpoint of the
            work directory, or a checkpoint's path.
        cfg_options (dict, optional): Settings to override, by dotted key.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        skip_checks (bool): Leave out the checks of
            :mod:`apa_mm.preflight.job`, and add no hook that checks.

    Raises:
        InputError: If a check fails; nothing has been written then.
    """
    cfg = options.load_config(config, work_dir, cfg_options, launcher)
    options.set_resume(cfg, resume)
    if auto_scale_lr:
        options.set_auto_scale_lr(cfg)
    options.set_amp(cfg, amp)
    options.set_safe_checkpoints(cfg)
    prepare_distributed(cfg)
    options.set_start(cfg, *on_rank_0(lambda: plan_resume(cfg)))
    if not skip_checks:
        _check(cfg, ('train', 'val'))
        options.add_hooks(cfg, 'CheckpointCheckHook', 'WeightDecayCheckHook',
                          'NonFiniteLossHook')
    with occupied(cfg.work_dir):
        return _build_runner(cfg).train()


def test(config: str, checkpoint: str, *, work_dir: Optional[str] = None,
         out: Optional[str] = None, show: bool = False,
         show_dir: Optional[str] = None, wait_time: float = 2.0,
         tta: bool = False, merge_views: str = 'DetTTAModel',
         cfg_options: Optional[dict] = None, launcher: str = 'none',
         skip_checks: bool = False) -> dict:
    """Evaluate a checkpoint by a config and return the metrics by name.

    Args:
        config (str): Path of the config file.
        checkpoint (str): Path or URL of the checkpoint.
        work_dir (str, optional): As for :func:`train`.
        out (str, optional): Pickle file to write the predictions to.
        show (bool): Show every image with its predictions in a window.
        show_dir (str, optional): Folder for the same images; for detection
            it lies below ``work_dir/<time stamp>/``.
        wait_time (float): Seconds that a window stays.
        tta (bool): Test-time augmentation by the config's ``tta_model`` and
            ``tta_pipeline``, or by flipping.
        merge_views (str): Type of a detector's ``tta_model`` where its config
            has none; ``tools/test.py`` takes the one for large vocabularies.
        cfg_options (dict, optional): As for :func:`train`.
        launcher (str): As for :func:`train`.
        skip_checks (bool): As for :func:`train`.

    Raises:
        InputError: If a check fails; nothing has been written then.
    """
    cfg = options.load_config(config, work_dir, cfg_options, launcher)
    options.check_out(out)
    cfg.load_from, cfg.resume = checkpoint, False
    options.set_amp(cfg, requested=False)
    if show or show_dir:
        options.set_visualization(cfg, show, show_dir, wait_time)
    if show_dir:
        folder = '' if options.is_classification(cfg) else cfg.work_dir
        check_writable('--show-dir', osp.join(folder, show_dir))
    if tta:
        options.set_tta(cfg, merge_views)
    prepare_distributed(cfg)
    if not skip_checks:
        _check(cfg, ('test', ))
        options.add_hooks(cfg, 'CheckpointCheckHook')
    runner = _build_runner(cfg)
    if out:
        runner.test_evaluator.metrics.append(
            METRICS.build(options.dump_metric(cfg, out)))
    return runner.test()


def _check(cfg: Config, splits: Sequence[str]) -> None:
    on_rank_0(lambda: check_config(cfg, splits=splits))
    on_rank_0(lambda: check_checkpoint(cfg))


def _build_runner(cfg: Config) -> Runner:
    build = RUNNERS.build if 'runner_type' in cfg else Runner.from_cfg
    return build(cfg)
