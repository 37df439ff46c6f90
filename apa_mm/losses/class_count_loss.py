"""What the losses built on class counts share."""
from typing import Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apa_mm.utils.checks import check_choice
from apa_mm.layers.class_counts import ClassCounts

from .utils import REDUCTIONS, weight_reduce_loss

__all__ = ['ClassCountLoss']


class ClassCountLoss(ClassCounts, nn.Module):
    r"""Base of softmax cross entropies that know the class counts.

    With target probabilities :math:`t` (one-hot for a label), class weights
    :math:`w` and logits :math:`z`, sample i has the loss :math:`-\sum_c w_c
    t_{ic} \log \mathrm{softmax}(z_i)_c`. A subclass changes ``z`` and ``w``.

    Args:
        num_classes (int): C.
        label_smoothing (float): Share of each target that is spread evenly
            over the classes, in [0, 1).
        reduction (str): 'none', 'mean' or 'sum'.
        loss_weight (float): Factor of the result.

    Raises:
        ValueError: For an argument out of its range.
    """

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
        self.num_classes = num_classes
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

        Args:
            cls_score (Tensor): Logits (N, C).
            label (Tensor): Labels (N,), integers in [0, C), or target
                probabilities (N, C) of any dtype.
            weight (Tensor, optional): Per sample (N,).
            avg_factor (int | Tensor, optional): Divisor of the sum for
                reduction 'mean'; N if not given.
            reduction_override (str, optional): Replaces ``reduction``.

        Returns:
            Tensor: (N,) for 'none', otherwise 0-d; float32 for half inputs.

        Raises:
            RuntimeError: If the class counts were never given.
            ValueError: If the logits do not have C columns, ``weight`` not N
                entries, or ``avg_factor`` comes with reduction 'sum'.
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

    def extra_repr(self) -> str:
        """Return the settings for ``print(module)``."""
        return (f'num_classes={self.num_classes}, '
                f'label_smoothing={self.label_smoothing}, '
                f'reduction={self.reduction!r}, '
                f'loss_weight={self.loss_weight}')
