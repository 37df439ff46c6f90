"""A check that fails on one rank ends all of them."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from support import forked
from support.tiny_jobs import write_detection_config, write_detection_data
from support.two_processes import free_port, run_two
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from apa_mm.engine.distributed import leave_group, on_rank_0
from apa_mm.preflight.job import InputError
from apa_mm.utils.imports import HAS_MMDET

TOOLS = Path(__file__).parents[2] / 'tools'


def _answers(rank, folder):
    calls = []

    def answer():
        calls.append(rank)
        return dict(of=rank)

    assert on_rank_0(answer) == dict(of=0)
    assert calls == [0] * (rank == 0)

    def fail():
        raise KeyError('a bug') if calls else None

    with pytest.raises(KeyError if rank == 0 else InputError, match='a bug'):
        on_rank_0(fail)


def test_all_ranks_get_the_answer_or_the_error(tmp_path):
    run_two(_answers, tmp_path)
    with pytest.raises(KeyError):
        on_rank_0(lambda: {}['alone'])


def _leaves(rank, folder):
    before = len(os.listdir('/proc/self/task'))
    net = DistributedDataParallel(nn.Linear(2, 2))
    net(torch.ones(1, 2)).sum().backward()
    dist.broadcast_object_list([rank])
    del net
    leave_group()
    assert not dist.is_initialized()
    # The threads of gloo, which would abort Python's shutdown, are gone.
    assert len(os.listdir('/proc/self/task')) < before
    leave_group()
    dist.init_process_group('gloo', init_method=f'file://{folder}/again',
                            rank=rank, world_size=2)


@pytest.mark.skipif(not os.path.isdir('/proc/self/task'),
                    reason='threads are counted in /proc')
def test_the_threads_of_a_group_end_with_it(tmp_path):
    run_two(_leaves, tmp_path)


@pytest.fixture
def broken(tmp_path):
    """A config whose annotations only rank 0 looks at, and are cut off."""
    if not HAS_MMDET:
        pytest.skip('mmdet is not installed')
    data = write_detection_data(tmp_path / 'data')
    (data / 'ann.json').write_text('{"images": [')
    return write_detection_config(tmp_path / 'tiny.py', data)


def environment(**extra):
    return dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(
            [str(TOOLS.parent), os.environ.get('PYTHONPATH', '')]),
        OMP_NUM_THREADS='1',
        PYTHON=sys.executable,
        **extra)


def test_a_bare_launch_ends_on_every_rank(broken, tmp_path):
    port = free_port()
    processes = [
        forked.Script(
            [TOOLS / 'train.py', broken, '--launcher', 'pytorch',
             '--work-dir', tmp_path / 'w'],
            env=environment(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE='2',
                MASTER_ADDR='127.0.0.1',
                MASTER_PORT=port)) for rank in range(2)
    ]
    done = [process.wait(timeout=120) for process in processes]
    errors = [each.stderr for each in done]
    assert [each.returncode for each in done] == [1, 1]
    assert 'ann.json (train CocoDataset): it is not JSON' in errors[0]
    assert 'error: stopped, since rank 0 found: ' in errors[1]
    assert not any('Traceback' in error for error in errors)
    assert not (tmp_path / 'w').exists()


def test_torchrun_ends_too(broken, tmp_path):
    result = subprocess.run(
        ['bash', TOOLS / 'dist_train.sh', broken, '2', '--work-dir',
         tmp_path / 'w'],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(PORT=free_port()))
    assert result.returncode == 1
    assert 'it is not JSON' in result.stderr
    assert not (tmp_path / 'w').exists()
