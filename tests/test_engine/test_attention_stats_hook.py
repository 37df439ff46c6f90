"""Gates are measured during validation and left alone otherwise."""
import json
from types import SimpleNamespace

import pytest
import torch
from support.two_processes import run_two

from apa_mm.engine.hooks import AttentionStatsHook
from apa_mm.layers import ChannelAttention
from apa_mm.registry import HOOKS
from apa_mm.utils.imports import HAS_MMPRETRAIN

HEAD = dict(type='mmpretrain.LinearClsHead',
            loss=dict(type='mmpretrain.CrossEntropyLoss'))


def num_hooks(model):
    return sum(len(m._forward_hooks) for m in model.modules())


def make_runner(tmp_path, backbone=None, **hook):
    from support import tiny_classifier
    return tiny_classifier.runner(
        tmp_path, tiny_classifier.classifier(HEAD, backbone),
        visualizer=dict(
            type='mmengine.Visualizer', name=f'stats-{tmp_path.name}',
            vis_backends=[dict(type='mmengine.LocalVisBackend')]),
        val_dataloader=dict(
            batch_size=2, num_workers=0, dataset=dict(type='TinyNoise'),
            sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate')),
        val_cfg=dict(), val_evaluator=dict(type='mmpretrain.Accuracy'),
        custom_hooks=[dict(type='apa_mm.AttentionStatsHook', **hook)],
        log_level='INFO')


def hook_of(runner):
    return next(h for h in runner.hooks
                if isinstance(h, AttentionStatsHook))


needs_mmpretrain = pytest.mark.skipif(
    not HAS_MMPRETRAIN, reason='mmpretrain missing')


@needs_mmpretrain
@pytest.mark.parametrize('interval, images', [(1, 8), (2, 4), (10, 2)])
def test_validation_leaves_statistics_of_every_gate(tmp_path, interval,
                                                    images):
    runner = make_runner(tmp_path, interval=interval)
    runner.val()
    file = next(tmp_path.glob('*/vis_data/scalars.json'))
    found = {k: v for line in file.read_text().splitlines()
             for k, v in json.loads(line).items()
             if k.startswith('attention/')}
    assert len(found) == 3 * 9
    name = 'attention/backbone.layer3.2.attention.gate'
    assert 0 < found[f'{name}/entropy'] <= 1
    assert 0 <= found[f'{name}/variance'] <= 0.25
    stats = hook_of(runner)._sums.result()
    assert {groups[0].images for groups in stats.values()} == {images}
    assert num_hooks(runner.model) == 0
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert f'attention (val): 9 gates on {images} images' in log


@needs_mmpretrain
def test_validation_gives_the_same_outputs(tmp_path):
    runner = make_runner(tmp_path, interval=1)
    runner.model.eval()
    hook = hook_of(runner)
    batch = next(iter(runner.build_dataloader(runner._val_dataloader)))
    with torch.no_grad():
        plain = runner.model.test_step(batch)
        hook._before_epoch(runner, 'val')
        hook._before_iter(runner, 0, batch, 'val')
        assert num_hooks(runner.model) == 10
        heard = runner.model.test_step(batch)
        hook._after_iter(runner, 0, batch, heard, 'val')
    for first, second in zip(plain, heard, strict=True):
        assert torch.equal(first.pred_score, second.pred_score)
    assert num_hooks(runner.model) == 0 and not hook._caught


@needs_mmpretrain
def test_hooks_are_gone_after_a_failing_batch(tmp_path):
    runner = make_runner(tmp_path, interval=1)

    def fail(module, inputs):
        raise ZeroDivisionError

    handle = runner.model.neck.register_forward_pre_hook(fail)
    with pytest.raises(ZeroDivisionError):
        runner.val()
    handle.remove()
    assert num_hooks(runner.model) == 0


@needs_mmpretrain
def test_training_is_not_listened_to(tmp_path):
    runner = make_runner(tmp_path, interval=1)
    hook = hook_of(runner)
    hook._before_epoch(runner, 'train')
    hook._before_iter(runner, 0, None, 'train')
    assert num_hooks(runner.model) == 0
    hook._after_iter(runner, 0, None, None, 'train')
    hook._after_epoch(runner, 'train')


@needs_mmpretrain
def test_a_model_without_gates_costs_one_line(tmp_path):
    runner = make_runner(tmp_path, dict(attention_cfg=None))
    runner.val()
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'has no attention gate to listen to' in log


def test_bad_interval():
    with pytest.raises(ValueError, match='1 batch or more, but got 0'):
        HOOKS.build(dict(type='apa_mm.AttentionStatsHook', interval=0))


def one_rank(rank, folder):
    """Validate four images on rank 0 and none on rank 1."""
    torch.manual_seed(0)
    model = ChannelAttention(32)
    said, scalars = [], []
    runner = SimpleNamespace(
        model=model, iter=3, logger=SimpleNamespace(info=said.append),
        visualizer=SimpleNamespace(
            add_scalars=lambda values, step: scalars.append(values)))
    hook = AttentionStatsHook(interval=1)
    hook._before_epoch(runner, 'val')
    if rank == 0:
        hook._before_iter(runner, 0, None, 'val')
        model(torch.rand(4, 32, 2, 2))
        hook._after_iter(runner, 0, None, None, 'val')
    hook._after_epoch(runner, 'val')
    assert said[0].startswith('attention (val): 1 gates on 4 images')
    assert set(scalars[0]) == {
        f'attention/gate/{m}' for m in ('entropy', 'variance', 'mean')}


def test_a_rank_without_images_knows_what_the_others_saw(tmp_path):
    run_two(one_rank, tmp_path)
