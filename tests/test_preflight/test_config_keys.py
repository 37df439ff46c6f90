import pytest
from mmengine.config import Config

from apa_mm.preflight.config_keys import check_keys


def report(**keys):
    base = dict(
        model=dict(type='X'),
        train_dataloader=dict(),
        env_cfg=dict(),
        default_scope='mmdet',
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
    return check_keys(Config(dict(base, **keys)))


@pytest.mark.parametrize('typo, meant', [
    ('optim_wraper', 'optim_wrapper'),
    ('optimizer_wrapper', 'optim_wrapper'),
    ('optim_wrappers', 'optim_wrapper'),
    ('param_schedular', 'param_scheduler'),
    ('param_schedulers', 'param_scheduler'),
    ('defualt_hooks', 'default_hooks'),
    ('custom_hook', 'custom_hooks'),
    ('custom_import', 'custom_imports'),
    ('train_dataloder', 'train_dataloader'),
    ('val_evalutor', 'val_evaluator'),
    ('load_form', 'load_from'),
    ('auto_scale_Ir', 'auto_scale_lr'),
    ('visualiser', 'visualizer'),
    ('randomnes', 'randomness'),
])
def test_a_misspelt_key_is_told_what_it_is_like(typo, meant):
    assert report(**{typo: dict()}).problems == [
        f"config key '{typo}' is not read; did you mean '{meant}'?"
    ]


@pytest.mark.parametrize('key', [
    'dataset_type', 'data_root', 'max_epochs', 'train_pipeline',
    'test_pipeline', 'val_evaluator_abs', 'train_dataloader2', 'norm_cfg',
    'backend_args', 'vis_backends', 'image_size', 'base_lr', 'tta_pipeline',
    'train_dataset', 'gallery_dataloader', 'conv_cfg', 'custom_keys',
    'sync_bn', 'compile'
])
def test_helper_variables_may_have_any_other_name(key):
    assert report(**{key: 1}) == ([], [])


@pytest.mark.parametrize('key, now', [
    ('fp16', 'optim_wrapper'),
    ('evaluation', 'val_evaluator'),
    ('lr_config', 'param_scheduler'),
    ('runner', 'train_cfg'),
    ('checkpoint_config', 'default_hooks.checkpoint'),
    ('log_config', 'default_hooks.logger'),
    ('workflow', 'train_cfg'),
    ('total_epochs', 'train_cfg.max_epochs'),
    ('optimizer', 'optim_wrapper.optimizer'),
])
def test_a_dead_key_is_told_its_successor(key, now):
    found, = report(**{key: dict(type='A')}).problems
    assert found.startswith(
        f"config key '{key}' is of the 2.x libraries and no longer read; "
        f'use {now}')


def test_an_optimizer_variable_that_is_used_is_fine():
    assert report(optimizer=dict(type='SGD', lr=0.1)) == ([], [])
    assert report(optimizer=dict(type='SGD', lr=0.2)).problems != []


def test_leftovers_beside_their_successor_only_warn():
    found = report(data=dict(samples_per_gpu=2), cudnn_benchmark=True)
    assert found.problems == []
    assert len(found.warnings) == 2
    alone = check_keys(Config(dict(model=dict(), data=dict())))
    assert 'use train_dataloader' in alone.problems[0]


def test_a_key_set_to_none_is_no_setting():
    assert report(resume_from=None, fp16=None) == ([], [])
