"""Linear, cosine and normalised classifier heads with logit offsets."""
from typing import Any, Optional

from mmpretrain.models.heads import LinearClsHead

from apa_mm.layers.predictor import CosineClassifier, CosineLinear
from apa_mm.registry import MODELS

from .logit_offset import LogitOffset


@MODELS.register_module()
class LongTailLinearClsHead(LogitOffset, LinearClsHead):
    """MMPretrain's ``LinearClsHead`` with offsets at test time.

    Args:
        num_classes, in_channels, **kwargs: As in ``LinearClsHead``.
        logit_offset (dict, optional): Correction of predictions for the
            training set's class counts, such as ``dict(type='raw')``; see
            :meth:`LogitOffset.init_logit_offset`. It needs
            ``apa_mm.ClassFrequencyHook``.

    Example:
        >>> import torch
        >>> head = LongTailLinearClsHead(
        ...     3, 8, logit_offset=dict(type='raw'))
        >>> head.set_class_frequency([100, 10, 5], num_images=115)
        >>> head.predict((torch.zeros(1, 8), ))[0].pred_label
        tensor([2])
    """

    def __init__(self, num_classes: int, in_channels: int,
                 logit_offset: Optional[dict] = None, **kwargs: Any) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        self.init_logit_offset(logit_offset)


@MODELS.register_module()
class CosineClsHead(LongTailLinearClsHead):
    """Cosine classifier on squashed features, the paper's long-tailed head.

    Arguments are those of :class:`LongTailLinearClsHead` and of
    :class:`apa_mm.layers.predictor.CosineClassifier`, the ``layer`` of
    ``init_cfg``, whose None keeps the layer's own start.
    """

    def __init__(self, num_classes: int, in_channels: int,
                 scale: Optional[float] = None, learnable_scale: bool = False,
                 eps: float = 1e-6, init_cfg: Optional[dict] = None,
                 **kwargs: Any) -> None:
        super().__init__(num_classes, in_channels, init_cfg=init_cfg, **kwargs)
        self.fc = CosineClassifier(in_channels, num_classes, scale,
                                   learnable_scale, eps)


@MODELS.register_module()
class NormalizedLinearClsHead(LongTailLinearClsHead):
    r"""Cosine classifier on unit features.

    .. math:: z_k = S \frac{x}{|x| + \epsilon} \cdot
        \frac{w_k}{|w_k| + \epsilon}

    The authors' head "norm" has S = 1, which bounds the probability of a
    class by e^2 / (e^2 + K - 1).

    Arguments are those of :class:`LongTailLinearClsHead` and of
    :class:`apa_mm.layers.CosineLinear`, the ``layer`` of ``init_cfg``, whose
    None keeps the layer's own start. ``scale`` is S, at the start if learned.
    """

    def __init__(self, num_classes: int, in_channels: int, scale: float = 1.0,
                 learnable_scale: bool = False, eps: float = 1e-6,
                 init_cfg: Optional[dict] = None, **kwargs: Any) -> None:
        super().__init__(num_classes, in_channels, init_cfg=init_cfg, **kwargs)
        self.fc = CosineLinear(in_channels, num_classes, bias=False,
                               temperature=scale, eps=eps,
                               learnable_temperature=learnable_scale)
