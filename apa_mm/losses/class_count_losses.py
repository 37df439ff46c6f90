"""Softmax cross entropies that know the class counts of the training set."""
from typing import Any, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apa_mm.functional.long_tail import (
    effective_number_weights, inverse_frequency_weights, log_prior)
from apa_mm.layers.class_counts import ClassCounts
from apa_mm.registry import MODELS
from apa_mm.utils.checks import check_choice

from .utils import REDUCTIONS, weight_reduce_loss


class ClassCountLoss(ClassCounts, nn.Module):
    r"""Base of softmax cross entropies that know the class counts.

    With target probabilities t, class weights w and logits z, sample i has
    the loss :math:`-\sum_c w_c t_{ic} \log \mathrm{softmax}(z_i)_c`. A
    subclass changes z and w.

    Args:
        num_classes (int): C.
        label_smoothing (float): Share of each target, in [0, 1), that is
            spread evenly over the classes.
        reduction (str): 'none', 'mean' or 'sum'.
        loss_weight (float): Factor of the result.

    Raises:
        ValueError: For an argument out of its range.
    """

    shown = ('num_classes', 'label_smoothing', 'reduction', 'loss_weight')

    def __init__(self, num_classes: int, label_smoothing: float = 0.0,
                 reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError('label_smoothing must be in [0, 1), but got '
                             f'{label_smoothing}')
        check_choice('reduction', reduction, REDUCTIONS)
        self.label_smoothing = label_smoothing
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.init_class_counts(num_classes)

    @staticmethod
    def needs_class_counts(cfg: dict) -> bool:
        """Return whether a config of this loss needs class counts."""
        return True

    def forward(self, cls_score: Tensor, label: Tensor,
                weight: Optional[Tensor] = None,
                avg_factor: Optional[Union[int, Tensor]] = None,
                reduction_override: Optional[str] = None) -> Tensor:
        """Compute the loss; the contract of MMPretrain's heads.

        ``cls_score`` are logits (N, C), ``label`` integers (N,) in [0, C) or
        target probabilities (N, C), as of mixup; ``reduction_override``
        replaces ``reduction``; others, and errors, as in
        :func:`~apa_mm.losses.utils.weight_reduce_loss`. The result is (N,)
        for 'none', otherwise 0-d, and float32 for half inputs.

        Raises:
            RuntimeError: If the class counts were never given.
            ValueError: If the logits do not have C columns.
        """
        reduction = reduction_override or self.reduction
        check_choice('reduction_override', reduction, REDUCTIONS)
        if cls_score.shape[-1] != self.num_classes:
            raise ValueError(
                f'{type(self).__name__} has num_classes={self.num_classes}, '
                f'but got logits of shape {tuple(cls_score.shape)}; set '
                'num_classes in the loss to that of the head')
        dtype = torch.promote_types(cls_score.dtype, torch.float32)
        target = label.to(dtype) if label.dim() > 1 else label
        loss = self._sample_loss(cls_score.to(dtype), target)
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction,
                                                     avg_factor)

    def _sample_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample (N,)."""
        raise NotImplementedError

    def _cross_entropy(self, logits: Tensor, target: Tensor,
                       class_weight: Optional[Tensor] = None) -> Tensor:
        return F.cross_entropy(logits, target, weight=class_weight,
                               reduction='none',
                               label_smoothing=self.label_smoothing)


@MODELS.register_module()
class LogitAdjustedLoss(ClassCountLoss):
    r"""Logit-adjusted cross entropy.

    .. math:: L = \mathrm{CE}(z + \tau \ln(n / N), t)

    "Long-tail learning via logit adjustment" (ICLR 2021, Eq. 10); nothing is
    added at test time.

    Args:
        tau (float): 1 fits a balanced test set, 0 is plain cross entropy.
        num_classes, **kwargs: Of :class:`ClassCountLoss`.

    Example:
        >>> import torch
        >>> loss = LogitAdjustedLoss(num_classes=2)
        >>> loss.set_class_frequency([3, 1], num_images=4)
        >>> loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor(1.3863)
    """

    shown = (*ClassCountLoss.shown, 'tau')

    def __init__(self, num_classes: int, tau: float = 1.0,
                 **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.tau = tau

    def _sample_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        prior = log_prior(self.require_class_counts().to(logits.dtype))
        return self._cross_entropy(logits + self.tau * prior, target)


@MODELS.register_module()
class BalancedSoftmaxLoss(LogitAdjustedLoss):
    r"""Balanced softmax cross entropy (BSCE).

    .. math:: L = -\ln \frac{n_y e^{z_y}}{\sum_c n_c e^{z_c}}

    "Balanced Meta-Softmax for Long-Tailed Visual Recognition" (NeurIPS 2020,
    Eq. 4): :class:`LogitAdjustedLoss` with tau 1, without this argument.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, tau=1.0, **kwargs)


@MODELS.register_module()
class DeferredReweightedLoss(ClassCountLoss):
    r"""Cross entropy with deferred re-weighting (DRW).

    "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss"
    (NeurIPS 2019): plain cross entropy first, class weights from the epoch
    at which ``apa_mm.DeferredReweightingHook`` switches them on.

    Args:
        weighting (str): 'effective', the effective number of images with
            ``beta``, mean weight over classes 1; or 'inverse', N / n.
        beta (float): In [0, 1); used by 'effective' only.
        normalize (bool): Divide the weights of this process's batch by their
            mean, as ``F.cross_entropy(weight=w)`` does for labels, so that
            the loss keeps its scale at the switch. False is the authors' form
            with mixup; with 'inverse' it is about C times as large.
        num_classes, **kwargs: Of :class:`ClassCountLoss`.

    Raises:
        ValueError: For an argument out of its range.

    Example:
        >>> import torch
        >>> loss = DeferredReweightedLoss(2, weighting='inverse')
        >>> loss.set_class_frequency([9, 1], num_images=10)
        >>> loss.set_reweighting(True)
        >>> loss(torch.tensor([[0., 1.]]), torch.tensor([0]))
        tensor(1.3133)
    """

    shown = (*ClassCountLoss.shown, 'weighting', 'beta', 'normalize')

    def __init__(self, num_classes: int, weighting: str = 'effective',
                 beta: float = 0.9999, normalize: bool = True,
                 **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        check_choice('weighting', weighting, ('effective', 'inverse'))
        if not 0 <= beta < 1:
            raise ValueError(f'beta must be in [0, 1), but got {beta}')
        self.weighting = weighting
        self.beta = beta
        self.normalize = normalize
        self.reweighting: Optional[bool] = None

    def set_reweighting(self, active: bool) -> None:
        """Switch the class weights on or off."""
        self.reweighting = active

    def class_weights(self) -> Tensor:
        """Return the class weights (C,), whether or not they are on."""
        counts = self.require_class_counts()
        if self.weighting == 'inverse':
            return inverse_frequency_weights(counts)
        return effective_number_weights(counts, self.beta)

    def _sample_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.reweighting is None:
            raise RuntimeError(
                'DeferredReweightedLoss was not told whether to weight; add '
                "dict(type='apa_mm.DeferredReweightingHook', start_epoch=...) "
                'to custom_hooks, 0 to weight from the start')
        if not self.reweighting:
            return self._cross_entropy(logits, target)
        weights = self.class_weights().to(logits.dtype)
        loss = self._cross_entropy(logits, target, weights)
        if not self.normalize:
            return loss
        soft = target.dim() > 1
        return loss / (target @ weights if soft else weights[target]).mean()
