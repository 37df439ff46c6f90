"""Tests of the switch of deferred re-weighting in a real Runner."""
import pytest
import torch
from mmengine.hooks import Hook
from support.tiny_classifier import COUNTS, classifier, runner

from apa_mm.engine.hooks import DeferredReweightingHook

HEAD = dict(
    type='mmpretrain.LinearClsHead',
    loss=dict(
        type='apa_mm.DeferredReweightedLoss',
        num_classes=3,
        weighting='inverse'))


class Probe(Hook):
    """Give the counts, and ask in every iteration what weights are in use."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.ratios = []

    def before_train(self, runner):
        loss = runner.model.head.loss_module
        if not loss.has_class_counts:
            loss.set_class_frequency(COUNTS, sum(COUNTS))

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        loss = runner.model.head.loss_module
        # Equal logits: the losses of the classes are as their weights.
        each = loss(
            torch.zeros(3, 3), torch.arange(3), reduction_override='none')
        self.ratios.append(round((each[2] / each[0]).item(), 4))


def train(tmp_path, start_epoch, max_epochs=3, head=HEAD, **kwargs):
    probe = Probe()
    job = runner(
        tmp_path,
        classifier(head),
        max_epochs,
        custom_hooks=[
            dict(
                type='apa_mm.DeferredReweightingHook',
                start_epoch=start_epoch), probe
        ],
        **kwargs)
    job.train()
    return probe.ratios, job


def test_the_switch_shows_in_the_loss_weights(tmp_path):
    ratios, job = train(tmp_path, start_epoch=2)
    # Two iterations per epoch; a class of 1 image weighs 5 times one of 5.
    assert ratios == [1., 1., 1., 1., 5., 5.]
    assert job.message_hub.get_scalar('train/reweighting').current() == 1


def test_a_resumed_run_is_in_the_right_state(tmp_path):
    train(tmp_path, start_epoch=1, max_epochs=2)
    ratios, _ = train(tmp_path, start_epoch=1, max_epochs=3, resume=True)
    assert ratios == [5., 5.]


def test_epoch_zero_weights_from_the_start(tmp_path):
    ratios, _ = train(tmp_path, start_epoch=0, max_epochs=1)
    assert ratios == [5., 5.]


@pytest.mark.parametrize('kwargs, match', [
    (dict(start_epoch=3), 'start_epoch=3 is never reached in max_epochs=3'),
    (dict(start_epoch=1, head=dict(type='mmpretrain.LinearClsHead')),
     'found no loss to switch; set loss='),
    (dict(start_epoch=1, train_cfg=dict(by_epoch=False, max_iters=2)),
     'counts epochs, but got IterBasedTrainLoop'),
])
def test_settings_that_could_not_work_stop_the_run(tmp_path, kwargs, match):
    with pytest.raises(ValueError, match=match):
        train(tmp_path, **kwargs)


@pytest.mark.parametrize('start_epoch', [-1, 1.5, None])
def test_bad_start_epoch(start_epoch):
    with pytest.raises(ValueError, match='integer of at least 0'):
        DeferredReweightingHook(start_epoch)
