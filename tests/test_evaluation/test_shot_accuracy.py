"""ShotAccuracy: sources of the counts, arithmetic, padding, errors."""
import json

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS
from mmengine.structures import BaseDataElement
from support.two_processes import run_two

from apa_mm.evaluation import ShotAccuracy
from apa_mm.evaluation.class_counts import dataset_class_counts
from apa_mm.registry import DATASETS

COUNTS = [150, 101, 100, 20, 19]
# True class, predicted class; two test images per class.
SAMPLES = [(0, 0), (0, 1), (1, 1), (1, 1), (2, 2), (2, 0), (3, 0), (3, 3),
           (4, 0), (4, 0)]


def samples(pairs=SAMPLES, num_classes=5):
    return [
        dict(
            pred_score=torch.eye(num_classes)[pred],
            pred_label=torch.tensor([pred]),
            gt_label=torch.tensor([label])) for label, pred in pairs
    ]


class Labels:
    """The smallest training set: labels and nothing else."""
    metainfo = dict(classes=tuple('abcde'))

    def __init__(self, pipeline=('an image is loaded', )):
        if pipeline:
            raise AssertionError('labels need no transforms')

    def __len__(self):
        return sum(COUNTS)

    def get_gt_labels(self):
        return [c for c, count in enumerate(COUNTS) for _ in range(count)]


@pytest.fixture
def labels_dataset():
    DATASETS.register_module(name='LabelsOnly', module=Labels)
    yield dict(type='apa_mm.LabelsOnly', pipeline=['a', 'b'])
    DATASETS._module_dict.pop('LabelsOnly')


def test_groups_in_per_cent():
    metric = ShotAccuracy(class_counts=COUNTS)
    metric.process(None, samples())
    assert metric.evaluate(10) == {
        'shot/many': 75., 'shot/medium': 50., 'shot/few': 0.
    }


def test_thresholds_are_arguments():
    metric = ShotAccuracy(class_counts=COUNTS, many=120, few=10)
    metric.process(None, samples())
    assert metric.evaluate(10) == {
        'shot/many': 50.,
        'shot/medium': pytest.approx(100 * (1 + .5 + .5 + 0) / 4)
    }


def test_counts_of_a_training_set_are_read_without_its_transforms(
        labels_dataset):
    metric = METRICS.build(
        dict(type='apa_mm.ShotAccuracy', train_dataset=labels_dataset))
    assert metric.class_counts == COUNTS


def test_counts_come_with_the_data_set_under_test():
    evaluator = Evaluator([ShotAccuracy()])
    evaluator.dataset_meta = dict(train_class_counts=tuple(COUNTS))
    elements = []
    for sample in samples():
        elements.append(BaseDataElement(**sample))
    evaluator.process(elements)
    assert evaluator.evaluate(10)['shot/many'] == 75.


def test_without_pred_label_the_most_probable_class_counts():
    metric = ShotAccuracy(class_counts=[200, 200])
    metric.process(None, [dict(pred_score=[.2, .8], gt_label=1)])
    assert metric.evaluate(1) == {'shot/many': 100.}


def test_no_counts_is_an_error_before_the_first_iteration():
    with pytest.raises(ValueError, match=r'set train_dataset=dict\(...\) or'):
        Evaluator([ShotAccuracy()]).dataset_meta = dict(classes=('a', 'b'))


def test_counts_that_do_not_match_are_errors():
    evaluator = Evaluator([ShotAccuracy(class_counts=[3, 4, 5])])
    with pytest.raises(ValueError, match='of 3 classes, but.*has 2 classes'):
        evaluator.dataset_meta = dict(classes=('a', 'b'))
    metric = ShotAccuracy(class_counts=[3, 4])
    with pytest.raises(ValueError, match='has 5 classes, but.*counts of 2'):
        metric.process(None, samples())
    metric.process(None, samples([(1, 1)], num_classes=2))
    metric.results.append((0, 2))
    with pytest.raises(ValueError, match=r'in \[0, 2\), but they span'):
        metric.evaluate(2)


def test_wrong_arguments_and_samples_are_errors():
    with pytest.raises(ValueError, match='give only one'):
        ShotAccuracy(class_counts=[1], train_dataset=dict(type='x'))
    with pytest.raises(ValueError, match='few=9 and many=3'):
        ShotAccuracy(class_counts=[1], many=3, few=9)
    metric = ShotAccuracy(class_counts=[3, 4])
    with pytest.raises(KeyError, match='no gt_label.*one label per'):
        metric.process(None, [dict(pred_score=[0., 1.])])
    with pytest.raises(ValueError, match=r'one class, but got \[0, 1\]'):
        metric.process(None, [dict(pred_score=[0., 1.], gt_label=[0, 1])])


def test_class_counts_of_data_sets_of_several_kinds():
    class Ids:
        """A wrapped data set: no get_gt_labels, no class names."""

        def __len__(self):
            return 4

        def get_cat_ids(self, index):
            return [[0], [2], [2], [0]][index]

    assert dataset_class_counts(Ids()) == [2, 0, 2]
    assert dataset_class_counts(Labels(pipeline=())) == COUNTS
    with pytest.raises(TypeError, match='list has neither get_gt_labels'):
        dataset_class_counts([1, 2])
    Ids.get_cat_ids = lambda self, index: [0, 1]
    with pytest.raises(ValueError, match='none or several'):
        dataset_class_counts(Ids())
    Ids.get_gt_labels = lambda self: [0, 5]
    Ids.metainfo = dict(classes=('a', 'b'))
    with pytest.raises(ValueError, match=r'in \[0, 2\).*span \[0, 5\]'):
        dataset_class_counts(Ids())
    Ids.get_gt_labels = lambda self: []
    with pytest.raises(ValueError, match='Ids is empty'):
        dataset_class_counts(Ids())


def evaluate_nine_of_ten(rank, folder):
    # Nine samples on two ranks: the sampler repeats sample 0 on rank 1.
    pairs = SAMPLES[:9]
    metric = ShotAccuracy(class_counts=COUNTS)
    mine = list(DefaultSampler(pairs, shuffle=False))
    assert len(mine) == 5
    metric.process(None, samples([pairs[i] for i in mine]))
    (folder / f'{rank}.json').write_text(json.dumps(metric.evaluate(9)))


def test_samples_that_pad_the_last_round_are_not_counted(tmp_path):
    run_two(evaluate_nine_of_ten, tmp_path)
    # With sample 0 counted twice, many-shot accuracy would be 83.3.
    expected = {'shot/many': 75., 'shot/medium': 50., 'shot/few': 0.}
    for rank in range(2):
        got = json.loads((tmp_path / f'{rank}.json').read_text())
        assert got == expected
