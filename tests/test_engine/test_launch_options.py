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
    own = ("default_scope = 'mmpretrain'\ntest_dataloader = dict("
           'pin_memory=False, num_workers=1, persistent_workers=False)\n'
           'val_dataloader = dict(a=1)')
    cfg = options.load_config(write(tmp_path, own))
    assert not cfg.test_dataloader.pin_memory
    assert not cfg.test_dataloader.persistent_workers
    assert cfg.test_dataloader.collate_fn.type == 'default_collate'
    assert not cfg.val_dataloader.persistent_workers


def test_settings_that_do_not_fit_are_one_sentence(tmp_path, capsys):
    path = write(tmp_path, "model = dict(type='A', parts=[1, 2])")
    for settings, words in (({'model.type.x': 1}, 'type='),
                            ({'model.parts.0.a': 1}, "'int'"),
                            ({'model.parts.7.a': 1}, 'Index 7 exceeds')):
        with pytest.raises(InputError, match='--cfg-options .* do not fit '
                           f'into .*job.py: {words}'):
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
        with pytest.raises(InputError, match=r'--out \. cannot be written'):
            options.check_out('a.pkl')
    with pytest.raises(InputError, match='--out .*job.py cannot be written'):
        options.check_out(path + '/a.pkl')
    monkeypatch.chdir(tmp_path)
    options.check_out('a.pickle')
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
    (dict(type='mmengine.CheckpointHook', interval=3),
     'apa_mm.SafeCheckpointHook'),
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
    for hooks in (dict(), dict(default_hooks=None)):
        cfg = Config(hooks)
        options.set_safe_checkpoints(cfg)
        # Without an interval mmengine's saves nothing.
        assert cfg.default_hooks.checkpoint == dict(
            type='apa_mm.SafeCheckpointHook', interval=1)


@pytest.mark.parametrize('resume, expected', [
    (None, (False, 'a.pth')),
    ('auto', (True, None)),
    ('', (True, '')),  # an empty variable of a script: no fresh start
    ('b.pth', (True, 'b.pth')),
])
def test_resume(resume, expected):
    cfg = config(load_from='a.pth', resume=False)
    options.set_resume(cfg, resume)
    assert (cfg.resume, cfg.load_from) == expected


@pytest.mark.parametrize('seed, expected', [(None, 5), (3, 3)])
def test_the_start_of_a_resumed_run(seed, expected):
    cfg = config(
        resume=True, randomness=dict(seed=seed, deterministic=True))
    options.set_start(cfg, 'a.pth', 5)
    assert (cfg.resume, cfg.load_from) == (True, 'a.pth')
    assert cfg.randomness == dict(seed=expected, deterministic=True)
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
            type='AmpOptimWrapper', dtype='float16', loss_scale=512.0,
            use_fsdp=True, modules=['neck']))
    options.set_amp(cfg, requested=False)
    assert cfg.optim_wrapper == dict(
        type='apa_mm.engine.CPUAmpOptimWrapper', modules=['neck'])
    plain = config()
    options.set_amp(plain, requested=False)
    assert plain.optim_wrapper.type == 'OptimWrapper'


def test_amp_where_the_config_says_little(cuda):
    cuda(True)
    cfg = Config(dict())
    options.set_amp(cfg, requested=True)
    assert cfg.to_dict() == {}
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD'))
    options.set_amp(cfg, requested=False)
    assert 'type' not in cfg.optim_wrapper
    options.set_amp(cfg, requested=True)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'


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


@pytest.mark.parametrize('hooks', [
    dict(default_hooks=None, custom_hooks=None), dict(),
    dict(default_hooks=dict(a=None, b=dict(interval=3)),
         custom_hooks=(dict(type='Mine'), )),
])
def test_hooks_are_added_to_whatever_is_there(hooks):
    cfg = Config(hooks)
    options.add_hooks(cfg, 'NonFiniteLossHook')
    assert cfg.custom_hooks == [*(hooks.get('custom_hooks') or ()),
                                dict(type='apa_mm.NonFiniteLossHook')]
    cfg = Config(dict(default_hooks=dict(
        a=dict(type='NonFiniteLossHook', patience=1))))
    options.add_hooks(cfg, 'NonFiniteLossHook')
    assert cfg.custom_hooks == []


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


@pytest.mark.parametrize('hooks', [
    None, dict(visualization=None), dict(timer=dict(type='IterTimerHook'))])
def test_images_are_shown_whatever_hooks_there_are(hooks):
    cfg = config(default_hooks=hooks) if hooks else Config(dict())
    options.set_visualization(cfg, True, None, 3.0)
    # No picture is written unless a folder is named.
    assert cfg.default_hooks == dict(hooks or {}, visualization=dict(
        type='DetVisualizationHook', draw=True, show=True, wait_time=3.0))


def test_classes_are_augmented_where_the_hook_draws_nothing():
    for hooks in (dict(), dict(default_hooks=dict(visualization=None)),
                  dict(default_hooks=dict(visualization=dict(type='V')))):
        cfg = config(**dict(hooks, default_scope='mmpretrain'))
        if not hooks:
            cfg.pop('default_hooks')
        options.set_tta(cfg, 'DetTTAModel')
        assert cfg.model.type == 'mmpretrain.AverageClsScoreTTA'
        assert 'tta_cfg' not in cfg.model
        pack = cfg.test_dataloader.dataset.pipeline[-1].transforms[1][0]
        assert pack == dict(type='PackDetInputs')
    cfg = config(default_scope='mmpretrain', tta_model=dict(type='Mine'))
    options.set_tta(cfg, 'DetTTAModel')
    assert cfg.model.type == 'Mine'


@pytest.mark.parametrize('test_cfg, nms, number', [
    ({}, .5, 100), (dict(test_cfg=None), .5, 100),
    (dict(test_cfg=dict(max_per_img=7)), .5, 7),
    (dict(test_cfg=dict(nms=dict(type='nms', iou_threshold=.9))), .9, 100),
])
def test_boxes_of_views_are_merged_as_those_of_an_image(test_cfg, nms,
                                                        number):
    cfg = config(model=dict(type='RetinaNet', **test_cfg))
    options.set_tta(cfg, 'DetTTAModel')
    assert cfg.model.tta_cfg == dict(
        nms=dict(type='nms', iou_threshold=nms), max_per_img=number)


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
    # What mmdet's merging of views reads.
    assert {'ori_shape', 'img_shape', 'scale_factor', 'flip',
            'flip_direction'} < set(pack[0].meta_keys)


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
    others = dict(cfg.env_cfg)
    prepare_distributed(cfg)
    assert dict(cfg.env_cfg, dist_cfg=0) == dict(others, dist_cfg=0)
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
    assert not cfg.model_wrapper_cfg.find_unused_parameters
    own = dict(type='MMFullyShardedDataParallel', device_ids=[0], a=1)
    cfg = config(launcher='pytorch', model_wrapper_cfg=own)
    prepare_distributed(cfg)
    assert cfg.model_wrapper_cfg == dict(own, device_ids=None)


@pytest.mark.parametrize('backend, rank, said', [
    (dict(backend='nccl'), 0, 'gloo instead of nccl'), ({}, 0, 'of nccl'),
    (dict(backend='mpi'), 0, 'gloo instead of mpi'),
    (dict(backend='gloo'), 0, ''), (dict(backend='nccl'), 1, '')])
def test_another_backend_is_said_once(cuda, monkeypatch, capfd, backend, rank,
                                      said):
    monkeypatch.setattr('torch.distributed.init_process_group',
                        lambda *_, **__: None)
    set_ranks(monkeypatch, RANK=rank)
    cuda(False)
    prepare_distributed(
        config(launcher='pytorch', env_cfg=dict(dist_cfg=backend)))
    found = ''.join(capfd.readouterr())
    assert ('no CUDA device: communicating by' in found) == bool(said)
    assert said in found


@pytest.mark.parametrize('rank', [None, '3'])
def test_a_job_of_one_process_and_a_group_that_is_there(monkeypatch, rank):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    monkeypatch.delenv('RANK', raising=False)
    if rank:
        monkeypatch.setenv('LOCAL_RANK', rank)
    cfg = config()
    before = cfg.to_dict()
    prepare_distributed(cfg)
    assert os.environ.pop('LOCAL_RANK') == (rank or '0')
    monkeypatch.setattr('torch.distributed.is_initialized', lambda: True)
    cfg.launcher = 'pytorch'
    prepare_distributed(cfg)
    assert cfg.to_dict() == dict(before, launcher='pytorch')


def test_distributed_jobs_with_a_gpu_are_started_by_mmengine(
        cuda, monkeypatch):
    started = []
    for name in ('set_multi_processing', 'init_dist'):
        monkeypatch.setattr(f'apa_mm.engine.distributed.{name}',
                            lambda *words, **kwargs: started.append(
                                (words, kwargs)))
    set_ranks(monkeypatch)
    cuda(True)
    for mp_cfg in (dict(mp_start_method='fork'), {}):
        cfg = config(launcher='pytorch', env_cfg=dict(
            dist_cfg=dict(backend='nccl'),
            **dict(mp_cfg=mp_cfg) if mp_cfg else {}))
        before = cfg.to_dict()
        started.clear()
        prepare_distributed(cfg)
        assert started == [((), dict(mp_cfg, distributed=True)),
                           (('pytorch', ), dict(backend='nccl'))]
        assert cfg.to_dict() == before
    started.clear()
    prepare_distributed(config(launcher='slurm'))  # sets its own ranks
    assert started[1] == (('slurm', ), {})


def test_a_launcher_that_launched_nothing(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        set_ranks(monkeypatch)
        monkeypatch.delenv(name)
        with pytest.raises(InputError, match=f'torchrun, but {name} is not '
                           'set; start the job by tools/dist_train.sh'):
            prepare_distributed(config(launcher='pytorch'))


def set_ranks(monkeypatch, **changes):
    for name, value in dict(dict(
            RANK=0, WORLD_SIZE=1, MASTER_ADDR='127.0.0.1', LOCAL_RANK=0,
            MASTER_PORT=29512), **changes).items():
        monkeypatch.setenv(name, str(value))


def test_slurm_without_a_gpu(cuda):
    cuda(False)
    with pytest.raises(InputError, match="'slurm' needs a GPU per process"):
        prepare_distributed(config(launcher='slurm'))
