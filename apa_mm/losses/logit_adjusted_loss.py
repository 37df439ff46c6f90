"""Cross entropies that add the log prior to the logits while training."""
from typing import Any

from torch import Tensor

from apa_mm.functional.long_tail import log_prior
from apa_mm.registry import MODELS

from .class_count_loss import ClassCountLoss

__all__ = ['BalancedSoftmaxLoss', 'LogitAdjustedLoss']


@MODELS.register_module()
class LogitAdjustedLoss(ClassCountLoss):
    r"""Logit-adjusted cross entropy.

    .. math:: L = \mathrm{CE}(z + \tau \ln(n / N), t)

    "Long-tail learning via logit adjustment" (ICLR 2021, Eq. 10). The logits
    of the trained network are those of a balanced set: nothing is added at
    test time.

    Args:
        num_classes (int): C.
        tau (float): 1 fits a balanced test set, 0 is plain cross entropy.
        **kwargs: Of :class:`~apa_mm.losses.class_count_loss.ClassCountLoss`.

    Example:
        >>> import torch
        >>> loss = LogitAdjustedLoss(num_classes=2)
        >>> loss.set_class_frequency([3, 1], num_images=4)
        >>> loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor(1.3863)
    """

    def __init__(
            self, num_classes: int, tau: float = 1.0, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.tau = tau

    def _sample_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        prior = log_prior(self.require_class_counts().to(logits.dtype))
        return self._cross_entropy(logits + self.tau * prior, target)

    def extra_repr(self) -> str:
        """Return the settings for ``print(module)``."""
        return f'{super().extra_repr()}, tau={self.tau}'


@MODELS.register_module()
class BalancedSoftmaxLoss(LogitAdjustedLoss):
    r"""Balanced softmax cross entropy (BSCE).

    .. math:: L = -\ln \frac{n_y e^{z_y}}{\sum_c n_c e^{z_c}}

    "Balanced Meta-Softmax for Long-Tailed Visual Recognition" (NeurIPS 2020,
    Eq. 4): :class:`LogitAdjustedLoss` with tau 1.

    Args:
        num_classes (int): C.
        **kwargs: Of :class:`~apa_mm.losses.class_count_loss.ClassCountLoss`.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, tau=1.0, **kwargs)
