"""Two-stage detectors small enough for a test, from mmdet's own configs."""
from pathlib import Path

import mmdet
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import DefaultScope

BASES = Path(mmdet.__file__).parent / '.mim' / 'configs' / '_base_' / 'models'
CHANNELS = 16
NUM_CLASSES = 7


def tiny_cfg(name):
    """Return ``_base_/models/<name>_r50_fpn.py`` with 16 channels."""
    cfg = Config.fromfile(BASES / f'{name}_r50_fpn.py').model
    cfg.backbone.update(depth=18, base_channels=8, init_cfg=None)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=CHANNELS)
    cfg.rpn_head.update(in_channels=CHANNELS, feat_channels=CHANNELS)
    roi_head = cfg.roi_head
    roi_head.bbox_roi_extractor.out_channels = CHANNELS
    for head in box_heads(cfg):
        head.update(
            in_channels=CHANNELS, fc_out_channels=24, num_classes=NUM_CLASSES)
    if 'mask_head' in roi_head:
        roi_head.mask_roi_extractor.out_channels = CHANNELS
        roi_head.mask_head.update(
            in_channels=CHANNELS,
            conv_out_channels=CHANNELS,
            num_convs=1,
            num_classes=NUM_CLASSES)
    cfg.test_cfg.rcnn.update(score_thr=0.01, max_per_img=20)
    cfg.test_cfg.rpn.update(nms_pre=60, max_per_img=40)
    return cfg


def box_heads(cfg):
    """Return the configs of the box heads, one or several."""
    heads = cfg.roi_head.bbox_head
    return heads if isinstance(heads, list) else [heads]


def build(cfg):
    """Build in mmdet's scope, as a runner does, with spread-out scores."""
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        torch.manual_seed(0)
        model = MODELS.build(cfg)
        model.init_weights()
    for name, parameter in model.named_parameters():
        if 'fc_cls' in name or 'conv_logits' in name:
            torch.nn.init.normal_(parameter)
    return model.eval()


def predict(model, data):
    """Return the detections for each image."""
    with torch.no_grad():
        return [s.pred_instances for s in model.test_step(data)]
