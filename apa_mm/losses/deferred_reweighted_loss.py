"""Cross entropy whose class weights switch on during training."""
from typing import Any, Optional

from torch import Tensor

from apa_mm.functional.long_tail import (effective_number_weights,
                                         inverse_frequency_weights)
from apa_mm.registry import MODELS
from apa_mm.utils.checks import check_choice

from .class_count_loss import ClassCountLoss

__all__ = ['DeferredReweightedLoss']

WEIGHTINGS = ('effective', 'inverse')


@MODELS.register_module()
class DeferredReweightedLoss(ClassCountLoss):
    r"""Cross entropy with deferred re-weighting (DRW).

    "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss"
    (NeurIPS 2019): plain cross entropy first, class weights after the
    learning rate has dropped. ``apa_mm.DeferredReweightingHook`` throws the
    switch; its ``start_epoch=0`` weights from the start.

    With ``normalize`` the weights of a batch are divided by their mean,
    :math:`\omega_i = \sum_c t_{ic} w_c` being that of sample i in this
    process, so that the loss keeps its scale at the switch. For labels this
    is ``F.cross_entropy(weight=w)``; for the soft targets of mixup PyTorch
    does not divide, and a loss weighted by :math:`N / n_c` is about C times
    as large as a plain one. ``normalize=False`` is that form, the authors'.

    Args:
        num_classes (int): C.
        weighting (str): 'effective', the effective number of images with
            ``beta``, mean weight over classes 1; or 'inverse', N / n.
        beta (float): In [0, 1); used by 'effective' only.
        normalize (bool): Whether a batch's weights are divided by their mean.
        **kwargs: Of :class:`~apa_mm.losses.class_count_loss.ClassCountLoss`.

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

    def __init__(self, num_classes: int, weighting: str = 'effective',
                 beta: float = 0.9999, normalize: bool = True,
                 **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        check_choice('weighting', weighting, WEIGHTINGS)
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
        if self.normalize:
            soft = target.dim() > 1
            omega = target @ weights if soft else weights[target]  # (N,)
            loss = loss / omega.mean()
        return loss

    def extra_repr(self) -> str:
        """Return the settings for ``print(module)``."""
        return (f'{super().extra_repr()}, weighting={self.weighting!r}, '
                f'beta={self.beta}, normalize={self.normalize}')
