"""Mask head that computes the logits of one class per RoI.

Shapes: N RoIs, C feature channels, K classes, H, W of the mask grid.
"""
from functools import partial
from typing import Any, Callable, List, Optional

import torch
from mmcv.cnn.bricks.wrappers import Conv2d
from mmdet.models.layers import NormedConv2d
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.func import functional_call, vmap

from apa_mm.layers.predictor import classwise_conv2d, cosine_classwise_conv2d
from apa_mm.registry import MODELS


class ClasswiseFeatures(Tensor):
    """Features (N, C, H, W) that give logits (k, H, W) for [rows, labels].

    Mask Scoring R-CNN indexes them so, and mmdeploy their sigmoid, which
    waits for the logits; all else sees a plain tensor.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl
    activated = False

    def sigmoid(self) -> Tensor:
        """Return the same features, which then give probabilities."""
        features = self.as_subclass(ClasswiseFeatures)
        features.head, features.activated = self.head, True
        return features

    def __getitem__(self, index: Any) -> Tensor:
        """Compute the logits of a pair of rows and labels alone."""
        plain = self.as_subclass(Tensor)
        if not isinstance(index, tuple) or len(index) != 2:
            return plain[index]
        rows, labels = index
        rows = list(rows) if isinstance(rows, range) else rows
        logits = self.head.logits_of(plain[rows], labels)[:, 0]
        return logits.sigmoid() if self.activated else logits


def classwise_method(conv: nn.Module) -> Optional[Callable]:
    """Find out how to compute one output channel per sample.

    Returns what leads from features and labels (N,) to logits (N, 1, H, W);
    None if the predictor, (N, C, H, W) -> (N, K, H, W), neither has a method
    ``forward_classwise`` nor is a 1 x 1 convolution, plain or cosine.
    """
    if hasattr(conv, 'forward_classwise'):
        return conv.forward_classwise
    if not isinstance(conv, nn.Conv2d) or (
            conv.kernel_size, conv.stride, conv.padding,
            conv.groups) != ((1, 1), (1, 1), (0, 0), 1):
        return None
    if type(conv) in (nn.Conv2d, Conv2d):
        return lambda x, labels: classwise_conv2d(
            x, conv.weight, conv.bias, labels)
    if type(conv) is NormedConv2d:
        return lambda x, labels: cosine_classwise_conv2d(
            x, conv.weight, conv.bias, labels, scale=_temperature(conv),
            power=conv.power, eps=conv.eps)
    if _temperature(conv) is not None:  # channels know their own row alone
        return partial(_own_forward, conv)
    return None


def _temperature(conv: nn.Module) -> Any:
    """Return what only cosine predictors have; mmdet 3.3 misspells it."""
    return getattr(conv, 'temperature', getattr(conv, 'tempearture', None))


def _own_forward(conv: nn.Conv2d, x: Tensor, labels: Tensor) -> Tensor:
    """Run the predictor's forward on each sample with its row alone."""
    rows = dict(weight=conv.weight[labels, None])  # (N, 1, C, 1, 1)
    if conv.bias is not None:
        rows['bias'] = conv.bias[labels, None]

    def forward(sample: Tensor, row: dict) -> Tensor:
        return functional_call(conv, row, (sample[None], ))[0]

    return vmap(forward)(x, rows)


@MODELS.register_module()
class ClasswiseFCNMaskHead(FCNMaskHead):
    """mmdet's ``FCNMaskHead`` without the mask logits that nothing reads.

    Loss and prediction use one channel per RoI, that of the true or predicted
    class. ``forward`` returns the features before the last convolution, which
    runs for that one channel once the label is known. Losses, gradients,
    masks and state dict are the parent's; memory does not grow with the
    number of classes.

    For RoI heads that hand the features back as they are or indexed by rows
    and labels, as mmdet's ``StandardRoIHead`` and ``MaskScoringRoIHead`` do.
    Cascades, which average the masks of their stages, train with this head
    but need ``classwise=False`` at test. Back to the parent's way::

        --cfg-options model.roi_head.mask_head.classwise=False

    Args:
        classwise (bool): False computes every channel, as the parent does.
    """

    def __init__(self, *args, classwise: bool = True, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.classwise = classwise
        if (classwise and not self.class_agnostic
                and classwise_method(self.conv_logits) is None):
            MMLogger.get_current_instance().warning(
                'ClasswiseFCNMaskHead cannot compute single channels of '
                f'{type(self.conv_logits).__name__}: it computes all '
                f'{self.num_classes} and picks one, which saves no memory; '
                'use apa_mm.CosineConv2d or give the predictor a method '
                'forward_classwise(x, labels)')

    def forward(self, x: Tensor) -> Tensor:
        """Compute features (N, C, H, W), or without ``classwise`` logits."""
        if not self.classwise:
            return super().forward(x)
        for conv in self.convs:
            x = conv(x)
        if self.upsample is not None:
            x = self.upsample(x)
            if self.upsample_method == 'deconv':
                x = self.relu(x)
        if not torch.compiler.is_compiling():
            x = x.as_subclass(ClasswiseFeatures)
            x.head = self
        return x

    def logits_of(self, features: Tensor, labels: Tensor) -> Tensor:
        """Compute logits (N, 1, H, W) of one class per RoI, labels (N,)."""
        features = features.as_subclass(Tensor)
        if self.class_agnostic or len(features) == 0:
            # Distributed training waits for a gradient of every parameter.
            return self.conv_logits(features)[:, :1]
        if method := classwise_method(self.conv_logits):
            return method(features, labels)
        rows = torch.arange(len(labels), device=labels.device)
        return self.conv_logits(features)[rows, labels][:, None]

    def loss_and_target(self, mask_preds: Tensor,
                        sampling_results: List[SamplingResult],
                        batch_gt_instances: List[InstanceData],
                        rcnn_train_cfg: ConfigDict) -> dict:
        """Compute the mask loss of the positive RoIs, as the parent does."""
        if not self.classwise:
            return super().loss_and_target(mask_preds, sampling_results,
                                           batch_gt_instances, rcnn_train_cfg)
        targets = self.get_targets(sampling_results, batch_gt_instances,
                                   rcnn_train_cfg)
        labels = torch.cat([res.pos_gt_labels for res in sampling_results])
        logits = self.logits_of(mask_preds, labels)
        if len(logits):
            loss = self.loss_mask(logits, targets, torch.zeros_like(labels))
        else:
            loss = logits.sum()
        return dict(loss_mask=dict(loss_mask=loss), mask_targets=targets)

    def _predict_by_feat_single(self, mask_preds: Tensor, bboxes: Tensor,
                                labels: Tensor, img_meta: dict,
                                rcnn_test_cfg: ConfigDict,
                                rescale: bool = False,
                                activate_map: bool = False) -> Tensor:
        if self.classwise:
            if activate_map:  # sigmoids of features mean nothing
                raise ValueError(
                    'ClasswiseFCNMaskHead got activated maps '
                    '(activate_map=True, as cascades and mask test-time '
                    'augmentation send them), but what it handed on are '
                    'features; set classwise=False in mask_head')
            mask_preds = self.logits_of(mask_preds, labels)
            labels = torch.zeros_like(labels)
        return super()._predict_by_feat_single(mask_preds, bboxes, labels,
                                               img_meta, rcnn_test_cfg,
                                               rescale, activate_map)
