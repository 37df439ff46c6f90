"""Tests of the class-count buffer: setting, saving, loading, errors."""
import copy

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from apa_mm.layers.class_counts import ClassCounts


class Module(ClassCounts, nn.Module):

    def __init__(self, num_classes=3):
        super().__init__()
        self.init_class_counts(num_classes)


@pytest.mark.parametrize('counts', [[5, 3, 2], torch.tensor([5, 3, 2]),
                                    torch.tensor([5., 3., 2.])])
def test_counts_become_state(counts):
    module = Module()
    module.set_class_frequency(counts, num_images=10)
    state = module.state_dict()
    assert list(state) == ['class_counts']
    assert state['class_counts'].dtype == torch.int64
    assert module.require_class_counts().tolist() == [5, 3, 2]


def test_a_checkpoint_carries_them():
    source, target = Module(), Module()
    source.set_class_frequency([5, 3, 2], 10)
    parent = nn.ModuleDict(dict(head=target))
    parent.load_state_dict({'head.class_counts': source.class_counts})
    assert target.require_class_counts().tolist() == [5, 3, 2]
    clone = copy.deepcopy(target)
    assert clone.require_class_counts().tolist() == [5, 3, 2]
    clone.set_class_frequency([5, 3, 2], 10)  # the same set again


def test_a_test_run_does_not_say_that_it_trains(caplog):
    module = Module()
    module.load_state_dict(dict(class_counts=torch.tensor([5, 3, 2])))
    logger = MMLogger.get_instance('class-counts-of-a-test')
    logger.addHandler(caplog.handler)
    module.eval().require_class_counts()
    assert not caplog.records
    module.train().require_class_counts()
    logger.removeHandler(caplog.handler)
    assert 'Module trains with the class counts of the ch' in caplog.text


def test_counts_of_other_classes_are_refused():
    target = Module()
    with pytest.raises(RuntimeError, match='size mismatch for class_counts'):
        target.load_state_dict(dict(class_counts=torch.tensor([5, 3])))
    with pytest.raises(RuntimeError, match='of 2 classes, not of 3'):
        target.require_class_counts()


def test_an_unset_checkpoint_leaves_them_unset():
    target = Module()
    target.load_state_dict(Module().state_dict())
    with pytest.raises(RuntimeError, match='was not given them'):
        target.require_class_counts()
    target.load_state_dict({})  # nor is their absence an error
    with pytest.raises(RuntimeError, match='was not given them'):
        target.require_class_counts()


def test_a_partial_checkpoint_keeps_them():
    module = Module()
    module.set_class_frequency([5, 3, 2], 10)
    module.load_state_dict({})
    assert module.require_class_counts().tolist() == [5, 3, 2]


def test_forgetting_them_names_the_hook():
    with pytest.raises(
            RuntimeError,
            match='Module needs the class counts.*apa_mm.ClassFrequencyHook'):
        Module().require_class_counts()


@pytest.mark.parametrize('counts, num_images, match', [
    ([5, 3], 8, 'num_classes=3, but the training set has 2 classes; set'),
    ([5, 3, 2], 11, 'sum to 10 and the training set has 11 images'),
    ([5, 0, 0], 5, r'2 of 3 have none \(classes \[1, 2\]\); remove'),
])
def test_counts_that_do_not_fit(counts, num_images, match):
    module = Module()
    with pytest.raises(ValueError, match=match):
        module.set_class_frequency(counts, num_images)
    assert not module.has_class_counts
    assert module.class_counts.tolist() == [0, 0, 0]


def test_classes_without_images_can_be_allowed():
    module = Module()
    module.every_class_needs_images = False
    module.set_class_frequency([5, 0, 1], 6)
    assert module.require_class_counts().tolist() == [5, 0, 1]


def test_another_class_order_is_refused():
    module = Module()
    module.load_state_dict(dict(class_counts=torch.tensor([5, 3, 2])))
    with pytest.raises(
            ValueError,
            match='in another class order: 2 of 3 classes differ, class 0 '
            'had 5 images and now has 3; give the data set the label order'):
        module.set_class_frequency([3, 5, 2], 10)
    assert module.class_counts.tolist() == [5, 3, 2]


def test_another_training_set_is_taken_and_noted(caplog):
    module = Module()
    module.load_state_dict(dict(class_counts=torch.tensor([5, 3, 2])))
    logger = MMLogger.get_instance('class-counts')
    logger.addHandler(caplog.handler)
    module.set_class_frequency([50, 3, 2], 55)
    logger.removeHandler(caplog.handler)
    assert module.class_counts.tolist() == [50, 3, 2]
    assert 'replaced by those of another training set: 1 of 3' in caplog.text


@pytest.mark.parametrize('num_classes', [1, 0, 2.5, None])
def test_bad_num_classes(num_classes):
    with pytest.raises(ValueError, match='integer of at least 2'):
        Module(num_classes)
