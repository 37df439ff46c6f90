"""Processes of one job: starting them on CPUs, and stopping them together."""
import datetime
import gc
import logging
import os
from typing import Callable, TypeVar

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_rank, init_dist
from mmengine.logging import print_log
from mmengine.utils.dl_utils import set_multi_processing
from torch import distributed

from apa_mm.preflight.job import InputError, is_rank_0

T = TypeVar('T')


def prepare_distributed(cfg: Config) -> None:
    """Start the group of a distributed job, as mmengine does on GPUs.

    Without any, the group talks by gloo, and the config is told so.

    Raises:
        InputError: If the launcher did not say which process this is, or
            needs a GPU and there is none.
    """
    launcher = cfg.get('launcher', 'none')
    # DDP takes its device from here; launchers set it, slurm's does later.
    os.environ.setdefault('LOCAL_RANK', '0')
    if launcher == 'none' or distributed.is_initialized():
        return
    if launcher == 'pytorch':
        missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR',
                                     'MASTER_PORT') if name not in os.environ]
        if missing:
            raise InputError(
                '--launcher pytorch needs the environment of torchrun, but '
                f'{", ".join(missing)} is not set; start the job by '
                'tools/dist_train.sh or tools/dist_test.sh')
    env_cfg = cfg.get('env_cfg') or {}
    settings = env_cfg.get('dist_cfg') or {}
    if torch.cuda.is_available():
        set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
        init_dist(launcher, **settings)
        return
    if launcher != 'pytorch':
        raise InputError(
            f'launcher {launcher!r} needs a GPU per process and there is '
            'none; use tools/dist_train.sh (launcher pytorch) on CPUs')
    asked = settings.get('backend', 'nccl')
    if asked != 'gloo' and is_rank_0(cfg):
        print_log(f'no CUDA device: communicating by gloo instead of {asked}',
                  'current', logging.WARNING)
    settings['backend'] = 'gloo'
    cfg.env_cfg = dict(env_cfg, dist_cfg=settings)
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False))
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)
    timeout = settings.get('timeout')
    distributed.init_process_group(
        'gloo', timeout=timeout and datetime.timedelta(seconds=timeout))


def leave_group() -> None:
    """Close the process group, if there is one, when all ranks are done.

    A thread of gloo that Python's shutdown overtakes aborts the process, and
    the launcher reports the finished job as failed.
    """
    if distributed.is_initialized():
        gc.collect()
        distributed.barrier()
        distributed.destroy_process_group()


def on_rank_0(function: Callable[[], T]) -> T:
    """Call a function in the first process; return its answer on every rank.

    If it raises, the exception goes on there; other ranks raise InputError.
    """
    answer = [None, None]
    try:
        if get_rank() == 0:
            answer[0] = function()
    except Exception as error:
        broadcast_object_list([None, str(error)])
        raise
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise InputError(f'stopped, since rank 0 found: {answer[1]}')
    return answer[0]
