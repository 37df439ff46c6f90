"""Gumbel Optimized Loss as a classifier loss of detectors."""
from typing import Dict, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from apa_mm.functional.gol import (
    GOL_ACTIVATIONS, count_foreground, gol_loss, rare_ratio)
from apa_mm.functional.gumbel import check_clamp, gumbel
from apa_mm.layers.class_counts import ClassCounts
from apa_mm.registry import MODELS
from apa_mm.utils.checks import check_choice

from .utils import REDUCTIONS, weight_reduce_loss

RARE_THRESHOLD = 0.0011  # of the paper's LVIS recipes


@MODELS.register_module()
class GOLLoss(ClassCounts, nn.Module):
    """Gumbel Optimized Loss with dropped negatives of rare classes.

    The mean of :func:`apa_mm.functional.gol_loss` over the RoIs, as
    ``loss_cls`` of any box head of mmdet, with the ``ratio`` of each call.

    Image frequencies come from ``apa_mm.ClassFrequencyHook`` or from a
    checkpoint, see :class:`~apa_mm.layers.class_counts.ClassCounts`. Out of
    training mode they may be unknown; no class is rare then.

    Args:
        num_classes (int): C, without background.
        rare_threshold (float): Image frequency in [0, 1] below which a class
            is rare: 815 of LVIS v1's 1,203 classes by default. 0 drops
            nothing and needs no frequencies.
        activation, clamp, ignore_index: As in ``gol_loss``. Test scores are
            not clamped.
        avg_non_ignore (bool): Without ``avg_factor``, 'mean' divides by the
            number of RoIs that are not ignored instead of N.
        reduction (str): 'none', 'mean' or 'sum'.
        loss_weight (float): Factor of the result.
        unverified_only (bool): Drop the negatives of a rare class only on
            images that neither show it nor are verified not to, as LVIS's
            files say, unlike the paper; needs ``apa_mm.FederatedRoIHead`` (or
            ``FederatedCascadeRoIHead``) and ``apa_mm.FederatedLVISDataset``.

    Raises:
        ValueError: For an argument out of its range.

    Example:
        >>> import torch
        >>> loss = GOLLoss(num_classes=3)
        >>> loss.set_class_frequency([900, 90, 1], num_images=1000)
        >>> loss(torch.zeros(2, 3), torch.tensor([0, 3]))
        tensor(1.1880)
    """

    one_label_per_image = False
    scores_sum_to_one = False
    # What mmdet's box heads ask for.
    custom_cls_channels = custom_activation = custom_accuracy = True
    shown = ('num_classes', 'rare_threshold', 'activation', 'clamp',
             'unverified_only', 'ignore_index', 'avg_non_ignore', 'reduction',
             'loss_weight')

    def __init__(self, num_classes: int,
                 rare_threshold: float = RARE_THRESHOLD,
                 activation: str = 'gumbel',
                 clamp: Optional[Tuple[float, float]] = None,
                 ignore_index: int = -100, avg_non_ignore: bool = False,
                 reduction: str = 'mean', loss_weight: float = 1.0,
                 unverified_only: bool = False) -> None:
        super().__init__()
        if not 0 <= rare_threshold <= 1:
            raise ValueError('rare_threshold must be an image frequency in '
                             f'[0, 1], but got {rare_threshold}')
        check_choice('activation', activation, GOL_ACTIVATIONS)
        check_choice('reduction', reduction, REDUCTIONS)
        self.rare_threshold = rare_threshold
        self.activation = activation
        self.clamp = None if clamp is None else check_clamp(clamp)
        self.unverified_only = unverified_only
        self._images: Optional[list] = None
        self.ignore_index = ignore_index
        self.avg_non_ignore = avg_non_ignore
        self.reduction = reduction
        self.loss_weight = loss_weight
        self.init_class_counts(num_classes)
        rare = torch.zeros(num_classes, dtype=torch.bool)
        self.register_buffer('rare', rare, persistent=False)

    @staticmethod
    def drops_below(cfg: dict) -> float:
        """Return the image frequency below which a config drops negatives."""
        # On a set without lists unverified_only drops none.
        return 0. if cfg.get('unverified_only') else cfg.get(
            'rare_threshold', RARE_THRESHOLD)

    @staticmethod
    def needs_class_counts(cfg: dict) -> bool:
        """Return whether a config of this loss drops anything by counts."""
        return cfg.get('rare_threshold') != 0

    def set_verified(self, verified: Sequence[Sequence[int]],
                     sizes: Sequence[int]) -> None:
        """Tell which labels each image of the next call is verified for.

        They are positive or verified negative there; ``sizes`` are the
        numbers of each image's RoIs, which follow each other.
        """
        self._images = list(zip(verified, sizes, strict=True))

    def forward(self, cls_score: Tensor, labels: Tensor,
                weight: Optional[Tensor] = None,
                avg_factor: Optional[Union[float, Tensor]] = None,
                reduction_override: Optional[str] = None) -> Tensor:
        """Compute the loss.

        ``cls_score`` (N, C) and ``labels`` (N,) as in ``gol_loss``;
        ``reduction_override`` replaces ``reduction``; others as in
        :func:`~apa_mm.losses.utils.weight_reduce_loss`. Errors are those of
        both. The result is (N,) for 'none', otherwise 0-d; float32, or
        float64 for float64 scores. Finite for N = 0.

        Raises:
            RuntimeError: If in training the frequencies are not known, or
                ``unverified_only`` was not told of the images.
            ValueError: If the scores do not have C columns.
        """
        reduction = reduction_override or self.reduction
        check_choice('reduction_override', reduction, REDUCTIONS)
        self._check_columns(cls_score)
        losses = self._losses(cls_score, labels)
        if avg_factor is None and reduction == 'mean' and self.avg_non_ignore:
            avg_factor = (labels != self.ignore_index).sum()
        return self.loss_weight * weight_reduce_loss(losses, weight, reduction,
                                                     avg_factor)

    def _losses(self, cls_score: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each RoI (N,)."""
        if self.training and self.rare_threshold > 0:
            self.require_class_counts()
        return self._dropping(cls_score, labels,
                              self.rare if self._any_rare else None)

    def _dropping(self, cls_score: Tensor, labels: Tensor,
                  rare: Optional[Tensor],
                  ratio: Union[Tensor, float, None] = None) -> Tensor:
        """Drop negatives of ``rare`` (C,), verified ones not if so set."""
        settings = dict(activation=self.activation, clamp=self.clamp,
                        ignore_index=self.ignore_index)
        if not self.unverified_only or rare is None or not self.training:
            return gol_loss(cls_score, labels, rare=rare, ratio=ratio,
                            **settings)
        images, self._images = self._images or [], None
        sizes = [size for _, size in images]
        if sum(sizes) != len(labels):
            raise RuntimeError(
                f'{self._name()} with unverified_only was told of '
                f'{sum(sizes)} RoIs, but got {len(labels)}; set roi_head.type='
                "'apa_mm.FederatedRoIHead', or FederatedCascadeRoIHead")
        if ratio is None:  # that of the batch
            ratio = rare_ratio(
                count_foreground(labels, rare, self.ignore_index))
        losses = []
        for scores, targets, (verified, _) in zip(
                cls_score.split(sizes), labels.split(sizes), images,
                strict=True):
            unverified = rare.clone()
            unverified[torch.as_tensor(verified, dtype=torch.int64)] = False
            losses.append(gol_loss(scores, targets, rare=unverified,
                                   ratio=ratio, **settings))
        return torch.cat(losses)

    def get_cls_channels(self, num_classes: int) -> int:
        """Return C; ValueError if the box head has another number."""
        if num_classes != self.num_classes:
            raise ValueError(
                f'loss_cls has num_classes={self.num_classes}, but the box '
                f'head has num_classes={num_classes}; set both to the number '
                'of classes of the dataset')
        return num_classes

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Turn scores (..., C) into probabilities (..., C + 1), unclamped.

        The last column, background, is 0 and ignored by mmdet's NMS.
        """
        self._check_columns(cls_score)
        activate = gumbel if self.activation == 'gumbel' else torch.sigmoid
        background = cls_score.new_zeros((*cls_score.shape[:-1], 1))
        return torch.cat([activate(cls_score), background], dim=-1)

    def get_accuracy(self, cls_score: Tensor,
                     labels: Tensor) -> Dict[str, Tensor]:
        """Return ``acc_classes``, in percent, over foreground RoIs (or 0)."""
        foreground = (labels != self.num_classes) & (
            labels != self.ignore_index)
        correct = (cls_score.argmax(1) == labels) & foreground
        return dict(acc_classes=100 * correct.sum() /
                    foreground.sum().clamp(min=1))

    def _check_columns(self, cls_score: Tensor) -> None:
        if cls_score.size(-1) != self.num_classes:
            raise ValueError(
                f'GOLLoss has num_classes={self.num_classes}, but got scores '
                f'of shape {tuple(cls_score.shape)}; it takes no background '
                'column, so the classifier must have num_classes outputs')

    def _renew_counts(self, source: str) -> None:
        super()._renew_counts(source)
        self._any_rare = False
        if self.has_class_counts:
            limit = self.rare_threshold * self.num_images.item()
            rare = self.class_counts.cpu().double() < limit
            # By assignment: the old mask may lie on the meta device still.
            self.rare = rare.to(self.class_counts.device)
            self._any_rare = bool(rare.any())
