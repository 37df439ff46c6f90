import argparse
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from apa_mm.engine import launch_options as options
from apa_mm.engine.distributed import prepare_distributed
from apa_mm.engine.work_dir import occupied
from apa_mm.preflight.job import InputError


@pytest.fixture
def cuda(monkeypatch):

    def switch(there):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: there)

    return switch


def config(**kwargs):
    base = dict(
        default_scope='mmdet',
        model=dict(type='FasterRCNN'),
        optim_wrapper=dict(
            type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(visualization=dict(type='DetVisualizationHook')),
        test_dataloader=dict(
            num_workers=2,
            dataset=dict(
                type='CocoDataset',
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='PackDetInputs')
                ])))
    return Config(dict(base, **kwargs))


def write(tmp_path, text):
    path = tmp_path / 'job.py'
    path.write_text(text)
    return str(path)


def test_the_work_dir_of_the_command_wins_then_the_configs(tmp_path):
    path = write(tmp_path, "work_dir = 'mine'")
    assert options.load_config(path, 'given').work_dir == 'given'
    assert options.load_config(path).work_dir == 'mine'
    assert options.load_config(write(
        tmp_path, 'a = 1')).work_dir == os.path.join('work_dirs', 'job')


def test_cfg_options_are_merged(tmp_path):
    path = write(tmp_path, "model = dict(type='A', depth=18)")
    cfg = options.load_config(path, cfg_options={'model.depth': 50})
    assert cfg.model.depth == 50 and cfg.launcher == 'none'
    # What is given stays as it is: a comparison gives it to every config.
    given = dict(model=dict(_delete_=True, type='B'))
    for _ in range(2):
        cfg = options.load_config(path, cfg_options=given)
        assert cfg.model == dict(type='B')


def test_a_config_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match='no.py does not exist; name a .py'):
        options.load_config(str(tmp_path / 'no.py'))


def test_dataloaders_of_mmpretrain_get_the_defaults_of_its_script(
        tmp_path, cuda):
    text = ("default_scope = '{}'\n"
            'train_dataloader = dict(num_workers=2)\n'
            "val_dataloader = dict(num_workers=0, collate_fn=dict(type='x'))\n"
            'test_dataloader = None')
    cuda(False)
    cfg = options.load_config(write(tmp_path, text.format('mmpretrain')))
    assert cfg.train_dataloader == dict(
        num_workers=2,
        pin_memory=False,
        persistent_workers=True,
        collate_fn=dict(type='default_collate'))
    assert cfg.val_dataloader.collate_fn.type == 'x'
    assert not cfg.val_dataloader.persistent_workers
    cuda(True)
    cfg = options.load_config(write(tmp_path, text.format('mmpretrain')))
    assert cfg.train_dataloader.pin_memory
    cfg = options.load_config(write(tmp_path, text.format('mmdet')))
    assert cfg.train_dataloader == dict(num_workers=2)


def test_settings_that_do_not_fit_are_one_sentence(tmp_path, capsys):
    path = write(tmp_path, "model = dict(type='A', parts=[1, 2])")
    for settings in ({'model.type.x': 1}, {'model.parts.7.a': 1}):
        with pytest.raises(InputError, match='--cfg-options .* do not fit '):
            options.load_config(path, cfg_options=settings)
    for words in (['a'], ['a=[1,2'], ['a=(1', '2']):
        with pytest.raises(SystemExit):
            parse('--cfg-options', *words)
        assert '--cfg-options takes key=value, with' in capsys.readouterr().err


def test_a_work_dir_that_cannot_be_is_refused_first(tmp_path, monkeypatch):
    path = write(tmp_path, 'a = 1')
    with pytest.raises(InputError, match='--work-dir .*job.py/w cannot be '
                       'written to: .*job.py is a file; name another'):
        options.load_config(path, path + '/w')
    with monkeypatch.context() as patch:
        patch.setattr(os, 'access', lambda *_: False)
        with pytest.raises(InputError, match='.* is not writable for you; na'):
            options.load_config(path, str(tmp_path / 'w'))
    with pytest.raises(InputError, match='--out .*job.py cannot be written'):
        options.check_out(path + '/a.pkl')
    options.load_config(path, str(tmp_path / 'new/w'))
    assert [p.name for p in tmp_path.iterdir()] == ['job.py']


def test_two_runs_in_one_folder(tmp_path, caplog):
    logger = MMLogger.get_instance('occupied')
    logger.addHandler(caplog.handler)
    with occupied(str(tmp_path / 'a')):
        with occupied(str(tmp_path / 'b')):
            assert not caplog.records
        with occupied(str(tmp_path / 'a')):
            assert 'another run trains in' in caplog.text
    caplog.clear()
    with occupied(str(tmp_path / 'a')):
        assert not caplog.records


@pytest.mark.parametrize('hook, expected', [
    (dict(type='CheckpointHook', interval=3), 'apa_mm.SafeCheckpointHook'),
    (dict(interval=3), 'apa_mm.SafeCheckpointHook'),
    (dict(type='Mine', interval=3), 'Mine'),
])
def test_checkpoints_are_written_safely(hook, expected):
    cfg = config(default_hooks=dict(checkpoint=hook))
    options.set_safe_checkpoints(cfg)
    assert cfg.default_hooks.checkpoint == dict(type=expected, interval=3)


def test_no_checkpoints_stay_no_checkpoints():
    cfg = config(default_hooks=dict(checkpoint=None))
    options.set_safe_checkpoints(cfg)
    assert cfg.default_hooks.checkpoint is None
    cfg = Config(dict())
    options.set_safe_checkpoints(cfg)
    assert cfg.default_hooks.checkpoint.type == 'apa_mm.SafeCheckpointHook'


@pytest.mark.parametrize('resume, expected', [
    (None, (False, 'a.pth')),
    ('auto', (True, None)),
    ('b.pth', (True, 'b.pth')),
])
def test_resume(resume, expected):
    cfg = config(load_from='a.pth', resume=False)
    options.set_resume(cfg, resume)
    assert (cfg.resume, cfg.load_from) == expected


@pytest.mark.parametrize('seed, expected', [(None, 5), (3, 3)])
def test_the_start_of_a_resumed_run(seed, expected):
    cfg = config(resume=True, randomness=dict(seed=seed))
    options.set_start(cfg, 'a.pth', 5)
    assert (cfg.resume, cfg.load_from) == (True, 'a.pth')
    assert cfg.randomness.seed == expected
    cfg = config(resume=True)
    options.set_start(cfg, None, None)
    assert (cfg.resume, cfg.load_from) == (False, None)
    cfg = config(resume=False, load_from='b.pth')
    options.set_start(cfg, None, None)
    assert (cfg.resume, cfg.load_from) == (False, 'b.pth')


def test_scaling_the_learning_rate_needs_a_base(tmp_path):
    cfg = config(auto_scale_lr=dict(enable=False, base_batch_size=16))
    options.set_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable is True
    with pytest.raises(InputError, match='needs auto_scale_lr.base_batch_si'):
        options.set_auto_scale_lr(config())


def test_amp_with_a_gpu_is_mmengines(cuda):
    cuda(True)
    cfg = config()
    options.set_amp(cfg, requested=True)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    cfg.optim_wrapper.loss_scale = 512.0
    options.set_amp(cfg, requested=True)
    assert cfg.optim_wrapper.loss_scale == 512.0


@pytest.mark.parametrize('scope, modules', [
    ('mmdet', ['backbone', 'neck']),
    ('mmpretrain', None),
])
def test_amp_without_a_gpu_is_bfloat16(cuda, scope, modules):
    cuda(False)
    cfg = config(default_scope=scope)
    options.set_amp(cfg, requested=True)
    assert cfg.optim_wrapper.type == 'apa_mm.engine.CPUAmpOptimWrapper'
    assert cfg.optim_wrapper.get('modules') == modules
    assert set(cfg.optim_wrapper) <= {'type', 'optimizer', 'modules'}


def test_amp_of_the_config_works_without_a_gpu_too(cuda):
    cuda(False)
    cfg = config(
        optim_wrapper=dict(
            type='AmpOptimWrapper', dtype='float16', loss_scale=512.0))
    options.set_amp(cfg, requested=False)
    assert cfg.optim_wrapper.type == 'apa_mm.engine.CPUAmpOptimWrapper'
    plain = config()
    options.set_amp(plain, requested=False)
    assert plain.optim_wrapper.type == 'OptimWrapper'


def test_amp_with_another_wrapper():
    cfg = config(optim_wrapper=dict(type='ApexOptimWrapper'))
    with pytest.raises(InputError, match='but got ApexOptimWrapper'):
        options.set_amp(cfg, requested=True)


def test_the_checkpoint_check_is_added_once():
    cfg = config()
    options.add_hooks(cfg, 'CheckpointCheckHook')
    options.add_hooks(cfg, 'CheckpointCheckHook')
    assert cfg.custom_hooks == [dict(type='apa_mm.CheckpointCheckHook')]
    own = dict(type='apa_mm.CheckpointCheckHook', priority='LOW')
    cfg = config(custom_hooks=[own, dict(type='EMAHook')])
    options.add_hooks(cfg, 'CheckpointCheckHook')
    assert cfg.custom_hooks == [own, dict(type='EMAHook')]


def test_detections_are_drawn():
    cfg = config()
    options.set_visualization(cfg, True, 'out', 3.0)
    assert cfg.default_hooks.visualization == dict(
        type='DetVisualizationHook',
        draw=True,
        show=True,
        wait_time=3.0,
        test_out_dir='out')


def test_classes_are_drawn_even_without_a_hook_in_the_config():
    cfg = config(default_scope='mmpretrain', default_hooks=dict())
    options.set_visualization(cfg, False, 'out', 3.0)
    assert cfg.default_hooks.visualization == dict(
        type='VisualizationHook', enable=True, out_dir='out', interval=1)


def test_flipping_is_the_default_augmentation():
    cfg = config()
    nms = dict(type='nms', iou_threshold=0.3)
    cfg.model.test_cfg = dict(rcnn=dict(nms=nms, max_per_img=300))
    options.set_tta(cfg, 'apa_mm.LargeVocabTTAModel')
    assert cfg.model.type == 'apa_mm.LargeVocabTTAModel'
    assert cfg.model.tta_cfg == dict(nms=nms, max_per_img=300)
    assert cfg.model.module.type == 'FasterRCNN'
    load, augment = cfg.test_dataloader.dataset.pipeline
    assert load.type == 'LoadImageFromFile'
    flips, pack = augment.transforms
    assert [flip.prob for flip in flips] == [1.0, 0.0]
    assert 'flip_direction' in pack[0].meta_keys


def test_the_configs_own_augmentation_is_kept():
    own = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug')]
    cfg = config(
        tta_model=dict(type='apa_mm.Mine', tta_cfg=dict(max_per_img=7)),
        tta_pipeline=own)
    cfg.test_dataloader.dataset = dict(type='Wrapper', dataset=dict(
        type='CocoDataset', pipeline=[]))
    options.set_tta(cfg, 'DetTTAModel')
    assert cfg.model.type == 'apa_mm.Mine'
    assert cfg.test_dataloader.dataset.dataset.pipeline == own


def test_classified_images_are_not_drawn_with_augmentation():
    cfg = config(default_scope='mmpretrain')
    options.set_visualization(cfg, False, 'out', 2.0)
    with pytest.raises(InputError, match='--tta cannot be joined with --show'):
        options.set_tta(cfg, 'DetTTAModel')


def test_predictions_are_pickles():
    options.check_out('a.pkl')
    options.check_out(None)
    with pytest.raises(InputError, match='in .pkl or .pickle, but got a.json'):
        options.check_out('a.json')
    assert options.dump_metric(config(), 'a.pkl') == dict(
        type='mmdet.DumpDetResults', out_file_path='a.pkl')
    cfg = config(default_scope='mmpretrain')
    assert options.dump_metric(cfg, 'a.pkl')['type'] == 'mmengine.DumpResults'


def parse(*words):
    parser = argparse.ArgumentParser()
    options.add_common_options(parser)
    return vars(parser.parse_args(words))


@pytest.mark.parametrize('option', ['--local_rank', '--local-rank'])
def test_both_spellings_of_the_local_rank(monkeypatch, option):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    # It goes into the environment; the launch functions do not take it.
    assert 'local_rank' not in parse(option, '3')
    assert os.environ.pop('LOCAL_RANK') == '3'
    monkeypatch.setenv('LOCAL_RANK', '1')
    parse(f'{option}=3')
    assert os.environ['LOCAL_RANK'] == '1'


def test_options_of_the_command_line():
    assert parse() == dict(
        work_dir=None, cfg_options=None, launcher='none', skip_checks=False)
    assert parse('--cfg-options', 'a.b=[1,2]', 'c=x')['cfg_options'] == {
        'a.b': [1, 2],
        'c': 'x'
    }


@pytest.mark.parametrize('dist_cfg', [
    dict(env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=60))),
    dict(env_cfg=dict(dist_cfg=dict(timeout=60), cudnn_benchmark=True)),
])
def test_distributed_jobs_without_a_gpu_talk_by_gloo(cuda, monkeypatch,
                                                     dist_cfg):
    started = {}
    monkeypatch.setattr(
        'torch.distributed.init_process_group',
        lambda backend, **kwargs: started.update(kwargs, backend=backend))
    set_ranks(monkeypatch)
    cuda(False)
    cfg = config(
        launcher='pytorch',
        find_unused_parameters=True,
        **dist_cfg)
    prepare_distributed(cfg)
    assert cfg.env_cfg.dist_cfg.backend == started['backend'] == 'gloo'
    assert started['timeout'].total_seconds() == 60
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=True,
        device_ids=None)


def test_a_config_without_env_cfg_is_distributed_too(cuda, monkeypatch):
    monkeypatch.setattr('torch.distributed.init_process_group',
                        lambda *_, **__: None)
    set_ranks(monkeypatch)
    cuda(False)
    cfg = config(launcher='pytorch')
    prepare_distributed(cfg)
    assert cfg.env_cfg == dict(dist_cfg=dict(backend='gloo'))


def test_distributed_jobs_with_a_gpu_are_started_by_mmengine(
        cuda, monkeypatch):
    started = []
    monkeypatch.setattr('apa_mm.engine.distributed.init_dist',
                        lambda *words, **kwargs: started.append(
                            (words, kwargs)))
    set_ranks(monkeypatch)
    cuda(True)
    cfg = config(
        launcher='pytorch', env_cfg=dict(dist_cfg=dict(backend='nccl')))
    before = cfg.to_dict()
    prepare_distributed(cfg)
    assert started == [(('pytorch', ), dict(backend='nccl'))]
    assert cfg.to_dict() == before


def test_a_launcher_that_launched_nothing(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(InputError, match='torchrun, but RANK.* is not set; '
                       'start the job by tools/dist_train.sh'):
        prepare_distributed(config(launcher='pytorch'))


def set_ranks(monkeypatch):
    for name, value in dict(RANK=0, WORLD_SIZE=1, MASTER_ADDR='127.0.0.1',
                            MASTER_PORT=29512).items():
        monkeypatch.setenv(name, str(value))


def test_slurm_without_a_gpu(cuda):
    cuda(False)
    with pytest.raises(InputError, match="'slurm' needs a GPU per process"):
        prepare_distributed(config(launcher='slurm'))
