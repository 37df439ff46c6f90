"""Bins, ECE and MCE against a published-style vector and plain numpy."""
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apa_mm.functional import (
    calibration_bins,
    expected_calibration_error,
    maximum_calibration_error,
)

# Labels, predictions and confidences with values on two borders, and what
# they must give with 10 bins: .1 belongs to the first bin, 0 to none.
LABELS, PREDICTIONS = [0, 1, 1, 0], [0, 1, 0, 0]
CONFIDENCES = [0., .1, .55, 1.]
ECE, MCE, ACCURACY = .483333, .9, .666667


def vector(dtype):
    correct = torch.tensor(LABELS) == torch.tensor(PREDICTIONS)
    return calibration_bins(torch.tensor(CONFIDENCES, dtype=dtype), correct)


def numpy_errors(confidences, correct, num_bins):
    """ECE and MCE bin by bin with numpy's right-closed digitize."""
    index = np.digitize(
        confidences, np.arange(num_bins + 1) / num_bins, right=True)
    gaps, weights = [0.], [0.]
    for k in range(1, num_bins + 1):
        inside = index == k
        if inside.any():
            gaps.append(
                abs(correct[inside].mean() - confidences[inside].mean()))
            weights.append(inside.sum())
    total = max(sum(weights), 1)
    return np.dot(gaps, weights) / total, max(gaps)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_the_known_vector(dtype):
    bins = vector(dtype)
    assert float(expected_calibration_error(bins)) == pytest.approx(
        ECE, abs=1e-6)
    assert float(maximum_calibration_error(bins)) == pytest.approx(
        MCE, abs=1e-6)
    hits = (bins.accuracy * bins.counts).sum() / bins.counts.sum()
    assert float(hits) == pytest.approx(ACCURACY, abs=1e-6)
    assert bins.counts.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('num_bins', [1, 3, 10, 15])
def test_every_border_belongs_to_the_bin_on_its_left(num_bins, dtype):
    borders = torch.tensor(
        [k / num_bins for k in range(1, num_bins + 1)], dtype=dtype)
    bins = calibration_bins(borders, borders > 2, num_bins)
    assert bins.counts.tolist() == [1] * num_bins
    above = torch.nextafter(borders[:-1], torch.ones((), dtype=dtype))
    bins = calibration_bins(above, above > 2, num_bins)
    assert bins.counts.tolist() == [0] + [1] * (num_bins - 1)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1), st.booleans()), min_size=1, max_size=40),
    st.sampled_from([1, 2, 10, 15]))
def test_agrees_with_numpy_and_stays_within_0_and_1(samples, num_bins):
    confidences = np.array([c for c, _ in samples])
    correct = np.array([hit for _, hit in samples])
    ece, mce = numpy_errors(confidences, correct, num_bins)
    bins = calibration_bins(
        torch.tensor(confidences), torch.tensor(correct), num_bins)
    got = float(expected_calibration_error(bins))
    assert got == pytest.approx(ece, abs=1e-12)
    assert float(maximum_calibration_error(bins)) == pytest.approx(
        mce, abs=1e-12)
    assert 0 <= got <= 1
    order = torch.randperm(len(samples))
    shuffled = calibration_bins(
        torch.tensor(confidences)[order], torch.tensor(correct)[order],
        num_bins)
    assert float(expected_calibration_error(shuffled)) == pytest.approx(
        got, abs=1e-12)


def test_no_samples_give_zero():
    bins = calibration_bins(torch.zeros(0), torch.zeros(0) > 0)
    assert float(expected_calibration_error(bins)) == 0
    assert float(maximum_calibration_error(bins)) == 0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_read(dtype):
    bins = calibration_bins(
        torch.tensor([.25, .75], dtype=dtype), torch.tensor([True, False]), 4)
    assert bins.counts.tolist() == [1, 0, 1, 0]
    assert float(expected_calibration_error(bins)) == .75


@pytest.mark.parametrize('args, message', [
    ((torch.rand(3), torch.ones(2) > 0), r'one length.*\(3,\) and \(2,\)'),
    ((torch.rand(3), torch.ones(3) > 0, 0), 'num_bins must be 1 or more'),
    ((torch.tensor([2., .5]), torch.ones(2) > 0), r'span\s+\[0.5, 2.0\]'),
    ((torch.tensor([float('nan')]), torch.ones(1) > 0), 'probabilities'),
    ((torch.ones(1).long(), torch.ones(1) > 0), 'floating point'),
])
def test_wrong_input_is_named(args, message):
    with pytest.raises(ValueError, match=message):
        calibration_bins(*args)
