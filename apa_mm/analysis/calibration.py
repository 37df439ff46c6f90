"""Reliability of many, medium and few-shot classes apart (Fig. 8)."""
from typing import Dict, NamedTuple, Optional

import torch
from torch import Tensor

from apa_mm.functional.calibration import (CalibrationBins, calibration_bins,
                                           expected_calibration_error,
                                           maximum_calibration_error)

__all__ = ['Calibration', 'group_calibration']


class Calibration(NamedTuple):
    """Calibration of one group of samples.

    Attributes:
        count (int): Samples.
        ece (float): Expected calibration error in [0, 1]; NaN for none.
        mce (float): Maximum calibration error in [0, 1]; NaN for none.
        accuracy (float): Share of correct samples; NaN for none.
        confidence (float): Mean confidence; NaN for none.
        bins (CalibrationBins): What a reliability diagram shows.
    """

    count: int
    ece: float
    mce: float
    accuracy: float
    confidence: float
    bins: CalibrationBins


def group_calibration(confidences: Tensor,
                      correct: Tensor,
                      groups: Optional[Dict[str, Tensor]] = None,
                      num_bins: int = 10) -> Dict[str, Calibration]:
    """Compute ECE, MCE and the bins of all samples and of groups of them.

    Args:
        confidences (Tensor): Probability of the predicted class, (N,).
        correct (Tensor): Whether the prediction is right, bool, (N,).
        groups (dict[str, Tensor], optional): Masks by name, bool, (N,).
        num_bins (int): Bins of equal width, closed on the right.

    Returns:
        dict[str, Calibration]: 'all' first, then the groups.

    Raises:
        ValueError: As
            :func:`~apa_mm.functional.calibration.calibration_bins`.

    Example:
        >>> result = group_calibration(
        ...     torch.tensor([0.9, 0.9]), torch.tensor([True, False]),
        ...     dict(few=torch.tensor([False, True])))
        >>> [round(c.ece, 4) for c in result.values()]
        [0.4, 0.9]
    """
    masks = dict(all=torch.ones_like(correct, dtype=torch.bool))
    masks.update(groups or {})
    return {
        name: _calibration(confidences[mask], correct[mask], num_bins)
        for name, mask in masks.items()
    }


def _calibration(confidences: Tensor, correct: Tensor,
                 num_bins: int) -> Calibration:
    bins = calibration_bins(confidences, correct, num_bins)
    if not len(correct):
        nan = float('nan')
        return Calibration(0, nan, nan, nan, nan, bins)
    return Calibration(
        len(correct), float(expected_calibration_error(bins)),
        float(maximum_calibration_error(bins)),
        float(correct.double().mean()), float(confidences.double().mean()),
        bins)
