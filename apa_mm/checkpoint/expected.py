"""What a conversion's result must hold, told by building the model on meta.

What differs between networks of one kind, such as the number of classes, is
read off one tensor each.
"""
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, Mapping, Optional, Tuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from apa_mm.layers import CosineClassifier, CosineLinear
from apa_mm.utils.imports import HAS_MMDET
from apa_mm.weights import CheckpointError
from apa_mm.weights.errors import require
from apa_mm.weights.load_check import Comparison, rehearse_loading

from .architecture import Architecture, Shape, shapes_of


def head_shapes(head: str, num_classes: int, feat_dim: int
                ) -> Dict[str, Shape]:
    """Return the tensors of MMPretrain's classifier by our names."""
    sizes = (feat_dim, num_classes)
    with torch.device('meta'):
        if head in ('linear', 'inv'):
            layer: nn.Module = nn.Linear(*sizes)
        elif head == 'norm':
            layer = CosineLinear(*sizes, bias=False)
        else:
            layer = CosineClassifier(
                *sizes, learnable_temperature=head == 'lr_cosine')
    return {f'head.fc.{k}': v for k, v in shapes_of(layer).items()}


def detector_shapes(tensors: Mapping[str, Tensor],
                    architecture: Architecture) -> Optional[Dict[str, Shape]]:
    """Return the tensors of the authors' detector that a file describes."""
    if not HAS_MMDET:
        return None
    cfg = _detector_cfg(tensors, architecture)
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        model = MODELS.build(cfg)
        heads = model.roi_head.bbox_head
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            if head.reg_class_agnostic or head.fc_cls.out_features == 1:
                continue
            rows = _size(tensors, 'roi_head.bbox_head.fc_cls.weight', 1)
            if rows == head.num_classes:  # GOL has no background
                head.fc_cls = nn.Linear(head.fc_cls.in_features, rows)
    return shapes_of(model)


def _size(tensors: Mapping[str, Tensor], name: str, default: int) -> int:
    value = tensors.get(name)
    return default if value is None or not value.dim() else len(value)


def _detector_cfg(tensors: Mapping[str, Tensor],
                  architecture: Architecture) -> dict:
    """Return the config of a base model of mmdet with the sizes of a file."""
    masks = any(n.startswith('roi_head.mask_head.') for n in tensors)
    cascade = 'roi_head.bbox_head.0.fc_cls.weight' in tensors
    kind = (('cascade-mask' if masks else 'cascade') if cascade else
            ('mask' if masks else 'faster'))
    mmdet = Path(find_spec('mmdet').origin).parent
    cfg = Config.fromfile(
        mmdet / f'.mim/configs/_base_/models/{kind}-rcnn_r50_fpn.py').model
    width = architecture.feat_dim // 8
    fpn = _size(tensors, 'neck.lateral_convs.0.conv.weight', 256)
    cfg.backbone = architecture.cfg()
    cfg.neck.update(
        in_channels=[width * 2**i for i in range(4)], out_channels=fpn)
    cfg.rpn_head.update(in_channels=fpn, feat_channels=fpn)
    cfg.rpn_head.anchor_generator.ratios = (
        [1.0] * _size(tensors, 'rpn_head.rpn_cls.weight', 3))
    roi_head = cfg.roi_head
    roi_head.bbox_roi_extractor.out_channels = fpn
    name = 'roi_head.bbox_head.'
    if cascade:
        for i, head in enumerate(roi_head.bbox_head):
            head.update(_box_head(tensors, f'{name}{i}.', fpn))
    else:
        roi_head.bbox_head.update(_box_head(tensors, name, fpn))
    if masks:
        roi_head.mask_roi_extractor.out_channels = fpn
        roi_head.mask_head.update(_mask_head(tensors, fpn))
    return cfg


def _box_head(tensors: Mapping[str, Tensor], name: str, fpn: int) -> dict:
    rows = _size(tensors, f'{name}fc_cls.weight', 2)
    boxes = _size(tensors, f'{name}fc_reg.weight', 4)
    cfg = dict(
        in_channels=fpn, reg_class_agnostic=boxes == 4,
        num_classes=rows - 1 if boxes == 4 else max(1, boxes // 4),
        fc_out_channels=_size(tensors, f'{name}shared_fcs.0.weight', 1024))
    if any(n.endswith('.fc_cls.g') for n in tensors):
        cfg['cls_predictor_cfg'] = dict(
            type='apa_mm.WrappedCauchyLinear', form='released')
        if f'{name}fc_cls.scale' in tensors:  # learned
            cfg['cls_predictor_cfg']['scale'] = None
    return cfg


def _mask_head(tensors: Mapping[str, Tensor], fpn: int) -> dict:
    name = 'roi_head.mask_head.'
    cfg = dict(in_channels=fpn, conv_out_channels=fpn,
               num_classes=_size(tensors, f'{name}conv_logits.weight', 1))
    if f'{name}upsample.channel_compressor.weight' in tensors:
        cfg['upsample_cfg'] = dict(
            type='carafe', scale_factor=2, up_kernel=5, up_group=1,
            encoder_kernel=3, encoder_dilation=1, compressed_channels=64)
    if f'{name}conv_logits.temperature' in tensors:
        cfg['predictor_cfg'] = dict(
            type='apa_mm.CosineConv2d', learnable_temperature=True)
    return cfg


def compare_with_config(
        path: str, tensors: Dict[str, Tensor], backbone_only: bool
) -> Tuple[Comparison, Dict[str, Shape]]:
    """Build a config's model and rehearse loading the tensors."""
    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError:
        raise CheckpointError(f'the config {path} is not there; name a config '
                              'file of mmdet or mmpretrain') from None
    require(bool(cfg.get('model')), f'the config {path} has no model; name '
            'the config of a detector or classifier')
    try:
        with DefaultScope.overwrite_default_scope(
                cfg.get('default_scope') or 'mmengine'):
            model = MODELS.build(cfg.model)
    except Exception as error:
        # Whatever a config's constructors raise, it is the user's config.
        reason = str(error).strip().rpartition('\n')[2]
        raise CheckpointError(f'the model of {path} cannot be built ('
                              f'{type(error).__name__}: {reason}); mend the '
                              'config') from None
    if backbone_only:
        model = getattr(model, 'backbone', None)
        require(model is not None, f'the model of {path} has no backbone; use '
                'another --to')
    return rehearse_loading(model, tensors), shapes_of(model)
