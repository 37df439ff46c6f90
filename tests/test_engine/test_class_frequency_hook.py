"""Tests of the hook that hands the class frequencies out."""
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from support.tiny_annotations import (ANNOTATIONS, CLASSES, COUNTS, NUM_IMAGES,
                                      build, write)
from torch import nn

from apa_mm.engine.hooks import ClassFrequencyHook
from apa_mm.losses import GOLLoss
from apa_mm.registry import HOOKS


def runner_of(dataset, model):
    return SimpleNamespace(
        model=model,
        train_dataloader=SimpleNamespace(dataset=dataset),
        logger=logging.getLogger('test'))


def test_every_module_that_asks_gets_them(tmp_path, caplog):
    dataset = build('LVISV1Dataset', write(tmp_path / 'ann.json'))
    model = nn.ModuleDict(
        dict(
            first=GOLLoss(4, rare_threshold=0.3),
            body=nn.ModuleList([nn.Linear(2, 2), GOLLoss(4)])))
    hook = HOOKS.build(dict(type='apa_mm.ClassFrequencyHook'))
    for wrapped in (model, nn.DataParallel(model)):
        for loss in (model['first'], model['body'][1]):
            loss.load_state_dict(GOLLoss(4).state_dict())
        caplog.clear()
        with caplog.at_level(logging.INFO):
            hook.before_train(runner_of(dataset, wrapped))
        for loss in (model['first'], model['body'][1]):
            assert loss.class_counts.tolist() == COUNTS
            assert loss.num_images == NUM_IMAGES
        assert (f'class frequencies of 4 classes in {NUM_IMAGES} images (1 '
                'to 3 images per class)') in caplog.text
        assert 'for first, body.1' in caplog.text
    assert model['first'].rare.tolist() == [False, False, True, True]


def test_a_model_that_does_not_ask_costs_one_line(caplog):
    runner = runner_of(None, nn.Linear(2, 2))
    with caplog.at_level(logging.INFO):
        ClassFrequencyHook().before_train(runner)
    assert [r.getMessage() for r in caplog.records] == [
        'ClassFrequencyHook: no module of the model asks for class '
        'frequencies'
    ]


def test_a_named_file_replaces_the_dataset(tmp_path):
    dataset = build('CocoDataset', write(tmp_path / 'part.json', [(1, 10, 9)]))
    whole = write(tmp_path / 'whole.json')
    loss = GOLLoss(4)
    ClassFrequencyHook(ann_file=whole).before_train(runner_of(dataset, loss))
    assert loss.class_counts.tolist() == COUNTS


def test_classes_without_images(tmp_path):
    classes = CLASSES + ('emu', 'fox', 'gnu', 'hen', 'ibis', 'jay')
    path = write(tmp_path / 'ann.json', classes=classes)
    runner = runner_of(build('CocoDataset', path, classes), GOLLoss(10))
    with pytest.raises(
            ValueError, match='6 of 10 classes have no training image in '
            r'.*ann.json: emu, fox, gnu, hen, ibis, \.\.\.; remove.*'
            'allow_empty=True'):
        ClassFrequencyHook().before_train(runner)
    ClassFrequencyHook(allow_empty=True).before_train(runner)
    assert runner.model.class_counts.tolist() == COUNTS + [0] * 6


def test_num_classes_must_fit(tmp_path):
    dataset = build('CocoDataset', write(tmp_path / 'ann.json'))
    model = nn.ModuleDict(dict(good=GOLLoss(4), bad=GOLLoss(80)))
    with pytest.raises(
            ValueError, match=r'ann.json has 4 classes, but bad \(GOLLoss\) '
            'has num_classes=80; set num_classes=4'):
        ClassFrequencyHook().before_train(runner_of(dataset, model))
    assert not model['good'].has_frequency


# --- on a Runner ------------------------------------------------------------
class Toy(BaseModel):
    """One score per class; what it sees is one background RoI per image."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(4))
        self.loss_cls = GOLLoss(4)

    def forward(self, **data):
        scores = self.scores.expand(len(data['img_id']), 4)
        labels = torch.full((len(scores), ), 4)
        return dict(loss=self.loss_cls(scores, labels))


def collate(batch):
    return dict(img_id=[item['img_id'] for item in batch])


def train(dataset, work_dir, hooks, **kwargs):
    runner = Runner(
        Toy(),
        str(work_dir),
        train_dataloader=dict(
            batch_size=2,
            sampler=dict(type='DefaultSampler'),
            collate_fn=collate,
            dataset=dataset),
        train_cfg=dict(by_epoch=True, max_epochs=kwargs.pop('epochs', 1)),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=hooks,
        default_scope='mmengine',
        experiment_name=str(work_dir) + str(len(kwargs)),
        **kwargs)
    runner.train()
    return runner.model


def test_training_resuming_and_forgetting(tmp_path):
    dataset = build('LVISV1Dataset', write(tmp_path / 'ann.json'))
    hook = dict(type='apa_mm.ClassFrequencyHook')
    with pytest.raises(
            RuntimeError, match='add custom_hooks.*ClassFrequencyHook'):
        train(dataset, tmp_path / 'without', [])
    model = train(dataset, tmp_path / 'with', [hook])
    assert model.loss_cls.class_counts.tolist() == COUNTS
    assert model.scores.detach().any()
    checkpoint = tmp_path / 'with' / 'epoch_1.pth'
    # Another set's counts win over those of the checkpoint; without the hook
    # the checkpoint's are used.
    other = build('LVISV1Dataset',
                  write(tmp_path / 'b.json', ANNOTATIONS + [(6, 40, 20)]))
    options = dict(load_from=str(checkpoint))
    model = train(other, tmp_path / 'other', [hook], **options)
    assert model.loss_cls.class_counts.tolist() == [3, 2, 1, 2]
    model = train(other, tmp_path / 'loaded', [], **options)
    assert model.loss_cls.class_counts.tolist() == COUNTS
