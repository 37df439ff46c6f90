"""Post-hoc correction of a head's logits for a long-tailed training set."""
from typing import Any, List, Optional, Sequence, Union

from mmpretrain.structures import DataSample
from torch import Tensor

from apa_mm.functional import long_tail
from apa_mm.layers.class_counts import ClassCounts
from apa_mm.losses import LogitAdjustedLoss
from apa_mm.utils.checks import check_choice


class LogitOffset(ClassCounts):
    """Mixin of an MMPretrain head that adds class offsets at test time.

    Put it before the head's class and call :meth:`init_logit_offset` at the
    end of ``__init__``. Training and ``mode='tensor'`` see the plain logits;
    only predictions are corrected. A head without offsets keeps no counts,
    and its state dict is that of the plain head.
    """

    def init_logit_offset(self, logit_offset: Optional[dict]) -> None:
        """Take the setting; None is no correction.

        ``type`` is one of
        :data:`apa_mm.functional.long_tail.LOGIT_OFFSETS`, by default 'raw';
        ``tau``, a factor of the offset, is 1 by default.

        Raises:
            ValueError: If ``type`` is unknown, or the loss corrects for the
                class counts already.
            KeyError: If there is another key.
        """
        self.logit_offset = None
        if logit_offset is None:
            return
        if unknown := set(logit_offset) - {'type', 'tau'}:
            raise KeyError(f'logit_offset has unknown keys {sorted(unknown)}; '
                           "it takes 'type' and 'tau'")
        if isinstance(self.loss_module, LogitAdjustedLoss):
            raise ValueError(
                'logit_offset corrects predictions, but the loss is '
                f'{type(self.loss_module).__name__}, which corrects while '
                'training; remove one of the two')
        self.logit_offset = {'type': 'raw', 'tau': 1.0, **logit_offset}
        variant = self.logit_offset['type']
        check_choice("logit_offset['type']", variant, long_tail.LOGIT_OFFSETS)
        # (N + 1) / (n + 1) is finite for n = 0, the other forms are not.
        self.every_class_needs_images = variant != 'smooth'
        self.init_class_counts(self.num_classes)

    @property
    def predicts_with_class_counts(self) -> bool:
        """Whether predictions need the class counts."""
        return self.logit_offset is not None

    def set_class_frequency(self, counts: Union[Tensor, Sequence[int]],
                            num_images: int) -> None:
        """Take the class counts; does nothing for a head without offsets."""
        if self.logit_offset is not None:
            super().set_class_frequency(counts, num_images)

    def loss(self, feats: tuple, data_samples: List[DataSample],
             **kwargs: Any) -> dict:
        """Compute the loss on plain logits."""
        if self.logit_offset is not None:
            # Or forgetting them would show at the first validation only.
            self.require_class_counts()
        return super().loss(feats, data_samples, **kwargs)

    def offsets(self) -> Tensor:
        """Return what is added to the logits at test time, (C,)."""
        counts = self.require_class_counts()
        offset = long_tail.logit_offset(counts, self.logit_offset['type'])
        return self.logit_offset['tau'] * offset

    def _get_predictions(
            self, cls_score: Tensor,
            data_samples: Optional[List[DataSample]]) -> List[DataSample]:
        if self.logit_offset is not None:
            cls_score = cls_score + self.offsets()
        return super()._get_predictions(cls_score, data_samples)
