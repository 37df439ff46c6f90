"""Processes of one job on a machine without a GPU."""
import datetime
import logging
import os

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import distributed

from apa_mm.preflight.job import InputError, is_rank_0

__all__ = ['prepare_distributed']


def prepare_distributed(cfg: Config) -> None:
    """Let a distributed job run on CPUs; does nothing where there is a GPU.

    mmengine takes a GPU per process for granted: its start-up selects one
    and its wrapper names one. Without any, the group is started here with
    the gloo backend and the wrapper is told to use no device.

    Args:
        cfg (Config): The config of a job; ``env_cfg`` and
            ``model_wrapper_cfg`` are changed.

    Raises:
        InputError: If the launcher is neither 'none' nor 'pytorch'.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none' or torch.cuda.is_available():
        return
    if launcher != 'pytorch':
        raise InputError(
            f'launcher {launcher!r} needs a GPU per process and there is '
            'none; use tools/dist_train.sh (launcher pytorch) on CPUs')
    env_cfg = cfg.get('env_cfg') or {}
    settings = dict(env_cfg.get('dist_cfg') or {})
    asked = settings.get('backend', 'nccl')
    if asked != 'gloo' and is_rank_0(cfg):
        print_log(
            f'no CUDA device: communicating by gloo instead of {asked}',
            logger='current',
            level=logging.WARNING)
    settings['backend'] = 'gloo'
    cfg.env_cfg = dict(env_cfg, dist_cfg=settings)
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))
    wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper
    if not distributed.is_initialized():
        timeout = settings.get('timeout')
        distributed.init_process_group(
            'gloo',
            timeout=timeout and datetime.timedelta(seconds=timeout),
            rank=int(os.environ['RANK']),
            world_size=int(os.environ['WORLD_SIZE']))
