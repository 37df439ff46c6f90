"""mmdet's EQLv2 on the contract of mmdet's box heads."""
from typing import Dict, Optional, Tuple

from mmdet.models.losses import EQLV2Loss as MMDetEQLV2Loss
from mmdet.models.losses import accuracy
from mmengine.dist import is_distributed
from torch import Tensor

from apa_mm.registry import MODELS


@MODELS.register_module()
class EQLV2Loss(MMDetEQLV2Loss):
    """Equalization Loss v2 (CVPR 2021) for any box head of mmdet.

    mmdet's class ignores ``label_weights`` and ``avg_factor``, and box heads
    score its sigmoids by a softmax. Its statistics are summed over all ranks
    here whenever there are several. Arguments are the parent's but for
    ``use_distributed``; the C + 1 columns are classes and background.
    """

    custom_cls_channels = custom_activation = custom_accuracy = True
    scores_sum_to_one = False
    get_cls_channels = MMDetEQLV2Loss.get_channel_num

    def forward(self, cls_score: Tensor, labels: Tensor,
                weight: Optional[Tensor] = None,
                avg_factor: Optional[float] = None,
                reduction_override: Optional[str] = None) -> Tensor:
        """Return the loss, 0-d, of scores (N, C + 1), with N > 0.

        ``labels`` (N,) are in [0, C], ``weight`` (N,) is per RoI, in the
        statistics too; ``avg_factor`` divides the sum in place of N.

        Raises:
            ValueError: If the override is not 'mean', all that EQLv2 knows.
        """
        if reduction_override not in (None, 'mean'):
            raise ValueError("reduction_override must be None or 'mean', but "
                             f'got {reduction_override!r}')
        self.use_distributed = is_distributed()
        self._roi_weight = weight
        loss = super().forward(cls_score.float(), labels)
        # A graph that stays alive here would stop copies of the model.
        self.pred_class_logits = self.gt_classes = self._roi_weight = None
        return loss * (len(labels) / (avg_factor or len(labels)))

    def get_weight(self, pred: Tensor) -> Tuple[Tensor, Tensor]:
        """Return weights of positives and negatives, (N, C + 1) each."""
        positive, negative = super().get_weight(pred)
        if self._roi_weight is None:
            return positive, negative
        rows = self._roi_weight[:, None]
        return positive * rows, negative * rows

    def get_accuracy(self, cls_score: Tensor,
                     labels: Tensor) -> Dict[str, Tensor]:
        """Return ``acc_classes``, in percent, over foreground RoIs (or 0)."""
        inside = labels < self.num_classes
        return dict(acc_classes=accuracy(cls_score[inside, :-1],
                                         labels[inside]))
