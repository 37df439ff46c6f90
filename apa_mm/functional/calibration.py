"""Calibration of a classifier. Shapes: N samples, K bins."""
from typing import NamedTuple

import torch
from torch import Tensor


class CalibrationBins(NamedTuple):
    """What a reliability diagram shows.

    Borders of the bins from 0 to 1, (K + 1,), and of each bin, (K,), the
    samples (int64), the share of correct ones and the mean confidence, both
    in [0, 1] and 0 in an empty bin; float64.
    """

    edges: Tensor
    counts: Tensor
    accuracy: Tensor
    confidence: Tensor


def calibration_bins(confidences: Tensor, correct: Tensor,
                     num_bins: int = 10) -> CalibrationBins:
    """Sort predictions into bins of equal width, (k / K, (k + 1) / K].

    ``confidences`` are the probabilities of the predicted classes in [0, 1],
    floating point, (N,), and ``correct`` says which are right, bool, (N,). A
    confidence of 0 is in no bin; no softmax has it as its top probability.

    Raises:
        ValueError: If the shapes differ, ``num_bins`` is below 1 or a
            confidence lies outside [0, 1].

    Example:
        >>> bins = calibration_bins(
        ...     torch.tensor([0.05, 0.1, 0.55]), torch.tensor([0, 1, 1]) > 0)
        >>> bins.counts.tolist()
        [2, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    """
    _check(confidences, correct, num_bins)
    # k/K is rounded once, so that 0.3 falls on the border 3/10; a border made
    # by adding up widths would be 0.30000000000000004. Comparing in the
    # confidences' own precision keeps a float32 0.1 on the border, too.
    if confidences.dtype in (torch.float16, torch.bfloat16):
        confidences = confidences.float()
    edges = torch.arange(num_bins + 1, dtype=torch.float64,
                         device=confidences.device) / num_bins
    index = torch.bucketize(
        confidences.contiguous(), edges.to(confidences.dtype)) - 1
    inside = index >= 0
    index, values = index[inside], confidences[inside].double()
    zeros = edges.new_zeros(num_bins)
    counts = torch.bincount(index, minlength=num_bins)
    size = counts.clamp(min=1)
    hits = zeros.index_add(0, index, correct[inside].double())
    return CalibrationBins(edges, counts, accuracy=hits / size,
                           confidence=zeros.index_add(0, index, values) / size)


def expected_calibration_error(bins: CalibrationBins) -> Tensor:
    r"""Return the ECE, :math:`\sum_k n_k |a_k - c_k| / \sum_k n_k`.

    n, a and c are counts, accuracy and confidence. In [0, 1], float64, 0-d; 0
    without samples.
    """
    weight = bins.counts / bins.counts.sum().clamp(min=1).double()
    return (weight * (bins.accuracy - bins.confidence).abs()).sum()


def maximum_calibration_error(bins: CalibrationBins) -> Tensor:
    """Return the MCE, the largest ``|a - c|`` of a bin; range as of ECE."""
    return (bins.accuracy - bins.confidence).abs().max()


def _check(confidences: Tensor, correct: Tensor, num_bins: int) -> None:
    if num_bins < 1:
        raise ValueError(f'num_bins must be 1 or more, but got {num_bins}')
    if confidences.dim() != 1 or confidences.shape != correct.shape:
        raise ValueError(
            'confidences and correct must be vectors of one length, but got '
            f'shapes {tuple(confidences.shape)} and {tuple(correct.shape)}')
    if not confidences.is_floating_point():
        raise ValueError('confidences must be floating point, but got '
                         f'{confidences.dtype}')
    # The comparison is written so that NaN fails it.
    if not ((confidences >= 0) & (confidences <= 1)).all():
        raise ValueError(
            'confidences must be probabilities in [0, 1], but they span '
            f'[{float(confidences.min())}, {float(confidences.max())}]; pass '
            'softmax or sigmoid outputs, not logits')
