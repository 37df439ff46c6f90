"""What class counts turn into: logit offsets, priors and class weights.

Legend: C classes, ``counts`` or ``n`` training images per class, (C,), ``N``
their sum. Results are floating (torch's default dtype for integer counts),
(C,). Counts that are not 1-D raise ValueError.
"""
import math
from typing import Callable, Dict, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from apa_mm.utils.checks import check_choice


def logit_offset(counts: Tensor, variant: str = 'raw') -> Tensor:
    r"""Compute the per-class offset that is added to logits at test time.

    ``raw`` divides out the prior :math:`n_c / N` that plain cross entropy
    learns (PC-softmax); the others are the activations that
    inverse-image-frequency (IIF) learning tried. With :math:`p = n / N`:

    ========== ===========================
    ``raw``    ``ln(N / n)``
    ``smooth`` ``ln((N + 1) / (n + 1)) + 1``
    ``rel``    ``ln((N - n) / n)``
    ``normit`` ``-Phi^-1(p)``, Phi the normal distribution function
    ``gombit`` ``-ln(-ln(1 - p))``
    ``base2``  ``log2(N / n)``
    ``base10`` ``log10(N / n)``
    ========== ===========================

    Offsets are infinite for a class without images, except in ``smooth``. An
    unknown ``variant`` raises ValueError. The authors' training code
    evaluates with ``rel``, their per-group script with ``raw``.

    Example:
        >>> logit_offset(torch.tensor([100, 10, 5]))
        tensor([0.1398, 2.4423, 3.1355])
    """
    check_choice('variant', variant, LOGIT_OFFSETS)
    _check_counts(counts)
    return _OFFSETS[variant](counts, counts.sum())


def log_prior(counts: Tensor) -> Tensor:
    """Compute ``ln(n / N)``, what logit adjustment adds while training."""
    return -logit_offset(counts, 'raw')


def calibrate_scores(scores: Tensor, counts: Tensor, method: str = 'norcal',
                     gamma: float = 1.0) -> Tensor:
    r"""Calibrate a detector's scores for the class counts of its training.

    .. math:: p'_c = \frac{p_c w_c}{\sum_k p_k w_k + p_{bg}}

    ``norcal`` has :math:`w_c = n_c^{-\gamma}`, "On Model Calibration for
    Long-Tailed Object Detection and Instance Segmentation" (NeurIPS 2021).
    A variant of :func:`logit_offset`, the form of IIF, has
    :math:`w_c = e^{\gamma \cdot offset_c}`: the offset is added to the logits
    of the classes, not to the background's. A class without images counts as
    one with a single image.

    Args:
        scores (Tensor): Probabilities, background last, (..., C + 1).
        counts (Tensor): Training images per class, (C,).
        method (str): One of :data:`CALIBRATIONS`.
        gamma (float): Strength, chosen on held-out images; 0 changes nothing.

    Raises:
        ValueError: If ``method`` is unknown, or the columns are not C + 1.

    Example:
        >>> calibrate_scores(
        ...     torch.tensor([0.6, 0.1, 0.3]), torch.tensor([10, 1]))
        tensor([0.1304, 0.2174, 0.6522])
    """
    check_choice('method', method, CALIBRATIONS)
    _check_counts(counts)
    if scores.shape[-1] != len(counts) + 1:
        raise ValueError(
            f'scores must have C + 1 = {len(counts) + 1} columns, background '
            f'last, but got shape {tuple(scores.shape)}')
    counts = counts.clamp(min=1)
    offset = -counts.log() if method == 'norcal' else logit_offset(
        counts, method)
    weighted = scores * F.pad(gamma * offset, (0, 1)).exp()
    return weighted / weighted.sum(-1, keepdim=True)


def effective_number_weights(counts: Tensor, beta: float = 0.9999) -> Tensor:
    r"""Compute class weights from the effective number of images.

    .. math:: w_c \propto \frac{1 - \beta}{1 - \beta^{n_c}}, \quad
        \sum_c w_c = C

    "Class-Balanced Loss Based on Effective Number of Samples" (CVPR 2019,
    Eq. 4). Every count must be 1 or more. ``beta`` 0 gives equal weights,
    values towards 1 give weights proportional to ``1 / n``; outside of [0, 1)
    it raises ValueError.

    Example:
        >>> effective_number_weights(torch.tensor([100, 10, 5]))
        tensor([0.0972, 0.9678, 1.9350])
    """
    if not 0 <= beta < 1:
        raise ValueError(f'beta must be in [0, 1), but got {beta}; 0.9999 is '
                         'the value of LDAM-DRW')
    _check_counts(counts)
    # 1 - beta^n from logarithms: in float32 beta^5 is 0.9995, and the plain
    # difference would keep four digits of it.
    log_beta = math.log(beta) if beta else -math.inf
    weights = torch.expm1(counts * log_beta).neg().reciprocal()
    return weights * (len(counts) / weights.sum())


def inverse_frequency_weights(counts: Tensor) -> Tensor:
    """Compute the class weights ``N / n``; their mean over images is C."""
    _check_counts(counts)
    return counts.sum() / counts


def _check_counts(counts: Tensor) -> None:
    if counts.dim() != 1:
        raise ValueError('counts must be one number per class, shape (C,), '
                         f'but got shape {tuple(counts.shape)}')


_OFFSETS: Dict[str, Callable[[Tensor, Tensor], Tensor]] = dict(
    raw=lambda n, total: total.log() - n.log(),
    smooth=lambda n, total: (total + 1).log() - (n + 1).log() + 1,
    rel=lambda n, total: (total - n).log() - n.log(),
    normit=lambda n, total: -torch.special.ndtri(n / total),
    gombit=lambda n, total: -torch.log(-torch.log1p(-(n / total))),
    base2=lambda n, total: (total.log() - n.log()) / math.log(2),
    base10=lambda n, total: (total.log() - n.log()) / math.log(10))
#: Names of the variants that :func:`logit_offset` knows.
LOGIT_OFFSETS: Tuple[str, ...] = tuple(_OFFSETS)
#: Names of the methods that :func:`calibrate_scores` knows.
CALIBRATIONS: Tuple[str, ...] = ('norcal', *LOGIT_OFFSETS)
