"""CalibrationError: the known vector, the file, padding, errors."""
import json

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.registry import METRICS
from support.two_processes import run_two

from apa_mm.evaluation import CalibrationError

# True class, predicted class, confidence: ECE .483333 and MCE .9 by hand.
VECTOR = [(0, 0, 0.), (1, 1, .1), (1, 0, .55), (0, 0, 1.)]


def samples(vector=VECTOR):
    result = []
    for label, pred, confidence in vector:
        scores = torch.zeros(3)
        scores[pred] = confidence
        result.append(
            dict(pred_score=scores, pred_label=[pred], gt_label=[label]))
    return result


def test_the_known_vector_and_its_file(tmp_path):
    out_file = str(tmp_path / 'bins.json')
    metric = METRICS.build(
        dict(type='apa_mm.CalibrationError', out_file=out_file))
    metric.process(None, samples())
    assert metric.evaluate(4) == {
        'calibration/ece': pytest.approx(.483333, abs=1e-6),
        'calibration/mce': pytest.approx(.9, abs=1e-6)
    }
    bins = json.loads((tmp_path / 'bins.json').read_text())
    assert bins['counts'] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert bins['accuracy'][0] == 1 and bins['accuracy'][5] == 0
    assert bins['confidence'][5] == pytest.approx(.55)
    assert len(bins['edges']) == 11


def test_num_bins_is_an_argument():
    metric = CalibrationError(num_bins=1)
    metric.process(None, samples())
    # One bin holds the last three: accuracy 2/3, mean confidence .55.
    assert metric.evaluate(4)['calibration/ece'] == pytest.approx(
        2 / 3 - .55, abs=1e-6)


def test_rounding_of_a_softmax_is_forgiven():
    metric = CalibrationError()
    metric.process(None, [dict(pred_score=[1.0000001, 0.], gt_label=[0])])
    assert metric.evaluate(1)['calibration/ece'] == 0


@pytest.mark.parametrize('score', [3.5, -.5, float('nan')])
def test_logits_are_an_error(score):
    sample = dict(pred_score=[score], pred_label=[0], gt_label=[0])
    with pytest.raises(ValueError, match='not defined for raw logits'):
        CalibrationError().process(None, [sample])


def test_wrong_arguments_are_errors():
    with pytest.raises(ValueError, match='num_bins must be 1 or more.*got 0'):
        CalibrationError(num_bins=0)
    with pytest.raises(ValueError, match="end with .json.*got 'bins.txt'"):
        CalibrationError(out_file='bins.txt')


def evaluate_three(rank, folder):
    vector = VECTOR[1:]
    metric = CalibrationError()
    mine = list(DefaultSampler(vector, shuffle=False))
    assert len(mine) == 2
    metric.process(None, samples([vector[i] for i in mine]))
    (folder / f'{rank}.json').write_text(json.dumps(metric.evaluate(3)))


def test_samples_that_pad_the_last_round_are_not_counted(tmp_path):
    run_two(evaluate_three, tmp_path)
    for rank in range(2):
        got = json.loads((tmp_path / f'{rank}.json').read_text())
        assert got['calibration/ece'] == pytest.approx(.483333, abs=1e-6)
