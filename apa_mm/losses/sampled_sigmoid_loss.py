"""The federated loss of CenterNet2 and Detic."""
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from apa_mm.registry import MODELS

from .gol_loss import GOLLoss


@MODELS.register_module()
class SampledSigmoidLoss(GOLLoss):
    r"""Binary cross entropy over a sample of the classes.

    .. math:: L = \frac{1}{N} \sum_i \sum_{j \in S} BCE(\sigma(s_{ij}), t_{ij})

    S holds every class among the labels of the call and, until it has
    ``num_sampled``, others drawn without replacement, in proportion to
    :math:`n^{power}`, n the images of a class. Every call and every rank
    draws anew; out of training mode all classes count. "Probabilistic
    two-stage detection" (2021), "Detecting Twenty-thousand Classes using
    Image-level Supervision" (ECCV 2022), which count the background among 50.

    Contract, columns, errors and the source of n are those of
    :class:`GOLLoss`. With ``unverified_only`` the verified negatives of an
    image count outside S too.

    Args:
        num_classes (int): C, without background.
        num_sampled (int): Classes in S, at least 1.
        power (float): 0 or more; 0 draws evenly and needs no frequencies.
        **kwargs: ``ignore_index``, ``avg_non_ignore``, ``reduction``,
            ``loss_weight``, ``clamp`` and ``unverified_only`` of GOLLoss.
    """

    shown = (*GOLLoss.shown, 'num_sampled', 'power')

    def __init__(self, num_classes: int, num_sampled: int = 50,
                 power: float = 0.5, **kwargs: Any) -> None:
        if num_sampled < 1 or not 0 <= power < math.inf:
            raise ValueError('num_sampled must be at least 1 and power finite '
                             f'and not negative, but got {num_sampled} and '
                             f'{power}')
        super().__init__(num_classes, rare_threshold=0, activation='sigmoid',
                         **kwargs)
        self.num_sampled = num_sampled
        self.power = power

    @staticmethod
    def drops_below(cfg: dict) -> float:
        """Return 0: what is dropped does not hang on a frequency."""
        return 0.

    @staticmethod
    def needs_class_counts(cfg: dict) -> bool:
        """Return whether a config of this loss draws by counts."""
        return cfg.get('power') != 0

    def _losses(self, cls_score: Tensor, labels: Tensor) -> Tensor:
        if not self.training:
            return super()._losses(cls_score, labels)
        if self.power:
            self.require_class_counts()
        # The greatest of n / Exp(1) are a draw without replacement.
        keys = self.class_counts.float().pow(self.power)
        keys = pad(keys / torch.empty_like(keys).exponential_(), (0, 1))
        shown = labels.where(labels != self.ignore_index, self.num_classes)
        keys = keys.index_fill(0, shown, math.inf)[:-1]
        least = keys.topk(min(self.num_sampled, len(keys))).values[-1]
        sampled = (keys >= least) & (keys > 0)
        return self._dropping(cls_score, labels, ~sampled, ratio=0.)
