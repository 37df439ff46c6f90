"""The launchers, end to end on tiny jobs, as a user starts them."""
import json
import os
import pickle
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.demo_jobs import run_tool
from support.tiny_jobs import (write_classification_config,
                               write_classification_data,
                               write_detection_config, write_detection_data)

from apa_mm.engine import launch
from apa_mm.utils.imports import HAS_MMDET, HAS_MMPRETRAIN
from apa_mm.preflight.job import InputError

ROOT = Path(__file__).parents[1]
GOL = dict(_delete_=True, type='apa_mm.GOLLoss', num_classes=3)
TOOLS = ROOT / 'tools'
pytestmark = pytest.mark.skipif(
    not (HAS_MMDET and HAS_MMPRETRAIN), reason='mmdet or mmpretrain missing')


def run(script, *words, cwd, **env):
    return run_tool(script, *words, cwd=cwd, **env)


def succeed(*args, **kwargs):
    result = run(*args, **kwargs)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr
    return result.stdout


class Job:
    """A config with its data, and what was trained by it."""

    def __init__(self, kind, root):
        self.kind, self.root = kind, root
        if kind == 'det':
            data = write_detection_data(root / 'data')
            self.config = write_detection_config(root / 'tiny.py', data)
        else:
            data = write_classification_data(root / 'data')
            self.config = write_classification_config(root / 'tiny.py', data)
        self.trained = root / 'trained'


@pytest.fixture(scope='module', params=['det', 'cls'])
def job(request, tmp_path_factory):
    job = Job(request.param, tmp_path_factory.mktemp(request.param))
    job.log = succeed(
        TOOLS / 'train.py',
        job.config,
        '--work-dir',
        job.trained,
        '--auto-scale-lr',
        '--cfg-options',
        'optim_wrapper.optimizer.lr=0.002',
        cwd=job.root)
    return job


@pytest.fixture
def det(tmp_path):
    return Job('det', tmp_path)


def metrics(folder):
    file, = folder.glob('*/*.json')
    return json.loads(file.read_text().splitlines()[-1])


def test_training_leaves_checkpoint_config_and_log(job):
    names = {path.name for path in job.trained.iterdir()}
    assert {'epoch_1.pth', 'last_checkpoint', 'tiny.py'} <= names
    # --cfg-options reached the config, --auto-scale-lr the optimizer.
    assert 'lr=0.002' in (job.trained / 'tiny.py').read_text()
    assert 'LR is set based on batch size of 16' in job.log
    assert '(CheckpointCheckHook)' not in job.log
    assert 'CheckpointCheckHook' in job.log


def test_resume_with_amp(job, tmp_path):
    folder = tmp_path / 'resumed'
    shutil.copytree(job.trained, folder)
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    log = succeed(
        TOOLS / 'train.py',
        job.config,
        '--work-dir',
        folder,
        '--resume',
        '--amp',
        '--cfg-options',
        'train_cfg.max_epochs=2',
        cwd=tmp_path)
    assert 'resumed epoch: 1, iter: 2' in log
    assert 'no CUDA device: mixed precision in bfloat16' in log
    assert 'Epoch(train) [2][2/2]' in log
    assert 'Epoch(train) [1]' not in log
    assert (folder / 'epoch_2.pth').is_file()


def test_testing_writes_metrics_predictions_and_images(job, tmp_path):
    log = succeed(
        TOOLS / 'test.py',
        job.config,
        job.trained / 'epoch_1.pth',
        '--work-dir',
        tmp_path / 'w',
        '--out',
        tmp_path / 'out.pkl',
        '--show-dir',
        'shown' if job.kind == 'det' else tmp_path / 'shown',
        cwd=tmp_path)
    assert 'tensors match, 0 missing' in log
    name = 'coco/bbox_mAP' if job.kind == 'det' else 'accuracy/top1'
    assert name in metrics(tmp_path / 'w')
    with open(tmp_path / 'out.pkl', 'rb') as file:
        predictions = pickle.load(file)
    assert len(predictions) == (4 if job.kind == 'det' else 6)
    # mmpretrain names pictures by file: both folders hold 0.png and 1.png.
    pictures = list(tmp_path.rglob('shown/*.png'))
    assert len(pictures) == (4 if job.kind == 'det' else 2)


def test_testing_with_augmentation(job, tmp_path):
    log = succeed(
        TOOLS / 'test.py',
        job.config,
        job.trained / 'epoch_1.pth',
        '--tta',
        cwd=tmp_path)
    assert 'the config has no tta_pipeline: flipping the images' in log
    # Without --work-dir the config's name says where.
    assert metrics(tmp_path / 'work_dirs' / 'tiny')


@pytest.mark.slow
def test_two_processes_on_cpus(det, tmp_path):
    log = succeed(
        TOOLS / 'dist_train.sh',
        det.config,
        2,
        '--work-dir',
        tmp_path / 'w',
        cwd=tmp_path,
        PYTHON=sys.executable,
        PORT='29653')
    assert 'communicating by gloo instead of nccl' in log
    assert 'Distributed launcher: pytorch' in log
    # The ranks of one run are no two runs.
    assert 'another run trains' not in log
    # Two of the four images each: one iteration of two.
    assert 'Epoch(train) [1][1/1]' in log
    assert (tmp_path / 'w' / 'epoch_1.pth').is_file()


@pytest.mark.slow
def test_the_own_script_of_mmdet_trains_and_resumes(det, tmp_path):
    """This is what ``mim train mmdet CONFIG`` starts; no custom_imports."""
    script = Path(find_spec('mmdet').origin).parent / '.mim/tools/train.py'
    assert 'custom_imports' not in det.config.read_text()
    words = (script, det.config, '--work-dir', tmp_path / 'w')
    succeed(*words, cwd=tmp_path)
    log = succeed(
        *words,
        '--resume',
        '--cfg-options',
        'train_cfg.max_epochs=2',
        cwd=tmp_path)
    assert 'resumed epoch: 1, iter: 2' in log


def test_refused_input_ends_in_one_sentence(det, tmp_path):
    result = run(
        TOOLS / 'train.py',
        det.config,
        '--work-dir',
        tmp_path / 'w',
        '--cfg-options',
        'optim_wraper.type=A',
        cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "error: config key 'optim_wraper' is not read; did you mean "
        "'optim_wrapper'?")
    assert 'Traceback' not in result.stderr
    assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize('change, message', [
    (dict(cfg_options={'evaluation.interval': 2}), "'evaluation' is of the 2"),
    (dict(cfg_options={'val_dataloader.dataset.ann_file': 'no.json'}),
     'no.json .val CocoDataset.: the annotation file does not exist'),
    (dict(cfg_options={'val_dataloader.dataset.data_prefix.img': 'no/'}),
     'image folder .*no/ does not exist'),
    (dict(cfg_options={'model.roi_head.bbox_head.num_classes': 7}),
     'num_classes is 7; set num_classes=3'),
    (dict(cfg_options={'model.rpn_head.loss_cls': GOL}),
     'model.rpn_head.loss_cls is apa_mm.GOLLoss, which only box heads'),
    (dict(cfg_options={'model.roi_head.bbox_head.loss_cls': GOL}),
     'needs the training images per class, and nothing tells it'),
    (dict(cfg_options={'load_from': 'no.pth'}), 'no.pth does not exist'),
    (dict(resume='no.pth'), 'no.pth does not exist'),
    (dict(auto_scale_lr=True, cfg_options={'auto_scale_lr': {}}),
     'needs auto_scale_lr.base_batch_size'),
])
def test_refused_training_leaves_nothing(det, change, message):
    if change.get('auto_scale_lr'):
        text = det.config.read_text()
        det.config.write_text(text.replace('auto_scale_lr =', 'unused ='))
        change = dict(auto_scale_lr=True)
    with pytest.raises(InputError, match=message):
        launch.train(str(det.config), work_dir=str(det.trained), **change)
    assert not det.trained.exists()


@pytest.mark.parametrize('change, message', [
    (dict(checkpoint='no.pth'), 'no.pth does not exist'),
    (dict(out='a.json'), 'must end in .pkl'),
    (dict(out='/dev/null/a.pkl'), '--out /dev/null cannot be written to'),
    (dict(show_dir='/dev/null/a'), '--show-dir /dev/null/a cannot be wr'),
    (dict(show_dir='a', work_dir='/dev/null/w'), '--work-dir .* cannot be w'),
    (dict(cfg_options={'test_dataloader.dataset.ann_file': 'no.json'}),
     'no.json .test CocoDataset.'),
])
def test_refused_testing_leaves_nothing(det, change, message):
    (det.root / 'a.pth').write_bytes(b'')
    words = dict(dict(checkpoint=str(det.root / 'a.pth')), **change)
    with pytest.raises(InputError, match=message):
        launch.test(
            str(det.config), **dict(dict(work_dir=str(det.trained)), **words))
    assert not det.trained.exists()


@pytest.mark.parametrize('job', ['det'], indirect=True)
def test_a_softmax_head_is_not_tested_as_one_of_gol(job, tmp_path):
    checkpoint = (job.trained / 'last_checkpoint').read_text().strip()
    with pytest.raises(InputError, match='softmax has one more than apa_mm.G'):
        launch.test(
            str(job.config),
            checkpoint,
            work_dir=str(tmp_path / 'w'),
            cfg_options={'model.roi_head.bbox_head.loss_cls': GOL})


def test_checks_can_be_skipped(det, monkeypatch):
    built = []
    monkeypatch.setattr(launch, '_build_runner', built.append)
    with pytest.raises(AttributeError):
        launch.train(
            str(det.config),
            work_dir=str(det.trained),
            skip_checks=True,
            cfg_options={'fp16': True})
    assert built[0].get('custom_hooks') is None


def echo(tmp_path, name):
    """Put a command on the way that prints its arguments."""
    path = tmp_path / 'bin' / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    path.chmod(0o755)
    return path


def test_words_of_the_distributed_scripts(tmp_path):
    python = echo(tmp_path, 'python')
    words = succeed(
        TOOLS / 'dist_train.sh',
        'a b.py',
        4,
        '--resume',
        cwd=tmp_path,
        PYTHON=str(python),
        NNODES='2',
        NODE_RANK='1',
        PORT='1234',
        MASTER_ADDR='10.0.0.1').splitlines()
    assert words == [
        '-m', 'torch.distributed.run', '--nnodes=2', '--node_rank=1',
        '--master_addr=10.0.0.1', '--master_port=1234', '--nproc_per_node=4',
        f'{TOOLS}/train.py', 'a b.py', '--launcher', 'pytorch', '--resume'
    ]
    words = succeed(
        TOOLS / 'dist_test.sh',
        'a.py',
        'b.pth',
        4,
        '--tta',
        cwd=tmp_path,
        PYTHON=str(python)).splitlines()
    assert words[2:] == [
        '--nnodes=1', '--node_rank=0', '--master_addr=127.0.0.1',
        '--master_port=29500', '--nproc_per_node=4', f'{TOOLS}/test.py',
        'a.py', '--launcher', 'pytorch', 'b.pth', '--tta'
    ]


@pytest.mark.parametrize('script, words', [
    ('train', ('a.py', '--amp')),
    ('test', ('a.py', 'b.pth', '--tta')),
])
def test_words_of_the_slurm_scripts(tmp_path, script, words):
    folder = echo(tmp_path, 'srun').parent
    printed = succeed(
        TOOLS / f'slurm_{script}.sh',
        'part',
        'name',
        *words,
        cwd=tmp_path,
        PATH=f'{folder}{os.pathsep}{os.environ["PATH"]}',
        GPUS='16',
        SRUN_ARGS='--mem=4G --quiet').splitlines()
    assert printed == [
        '-p', 'part', '--job-name=name', '--gres=gpu:8', '--ntasks=16',
        '--ntasks-per-node=8', '--cpus-per-task=5', '--kill-on-bad-exit=1',
        '--mem=4G', '--quiet', 'python', '-u', f'{TOOLS}/{script}.py',
        words[0], '--launcher', 'slurm', *words[1:]
    ]


@pytest.mark.parametrize(
    'script', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test'])
def test_too_few_words_print_the_usage(tmp_path, script):
    result = run(TOOLS / f'{script}.sh', 'a.py', cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith(f'usage: {script}.sh ')


def test_a_second_demo_waits_for_the_first(tmp_path):
    fcntl = pytest.importorskip('fcntl', reason='no locks on Windows')
    if shutil.which('flock') is None:
        pytest.skip('flock is not installed')
    script = tmp_path / 'tools/demo.sh'
    script.parent.mkdir()
    shutil.copy(TOOLS / 'demo.sh', script)
    out = tmp_path / 'work_dirs/demo'
    (out / 'apa-gol').mkdir(parents=True)
    with open(out / '.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run(script, cwd=tmp_path)
    assert result.returncode == 1
    assert 'another demo is running in' in result.stderr
    assert (out / 'apa-gol').is_dir()


@pytest.mark.parametrize('chosen', [None, 'ACTIVE'])
@pytest.mark.parametrize('script, words', [
    ('demo.sh', []), ('dist_train.sh', ['a.py', '1']),
    ('slurm_train.sh', ['partition', 'job', 'a.py'])])
def test_launchers_let_threads_sleep(tmp_path, script, words, chosen):
    """Unless the user wants them to spin."""
    (tmp_path / 'tools').mkdir()
    for name in (script, 'setup_env.sh'):
        shutil.copy(TOOLS / name, tmp_path / 'tools')
    stub = tmp_path / 'srun'
    # setup_env.sh asks by -c whether all is there.
    stub.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\n'
                    'echo "policy $OMP_WAIT_POLICY"\nexit 3\n')
    stub.chmod(0o755)
    env = {} if chosen is None else dict(OMP_WAIT_POLICY=chosen)
    result = run(
        tmp_path / 'tools' / script, *words, cwd=tmp_path, PYTHON=str(stub),
        APA_PYTHON=str(stub), PATH=f'{tmp_path}:{os.environ["PATH"]}', **env)
    assert f'policy {chosen or "PASSIVE"}\n' in result.stdout, result.stderr
