"""The config that a converted checkpoint needs."""
from typing import Any, Dict, Optional

from .architecture import Architecture

_HEADS: Dict[str, Dict[str, Any]] = {
    'linear': dict(type='LinearClsHead'),
    'inv': dict(type='LinearClsHead'),
    'cosine': dict(type='apa_mm.CosineClsHead'),
    'lr_cosine': dict(type='apa_mm.CosineClsHead', learnable_scale=True),
    'norm': dict(type='apa_mm.NormalizedLinearClsHead'),
}


def config_text(to: str, checkpoint: str, architecture: Architecture,
                head: Optional[str] = None, num_classes: Optional[int] = None,
                cauchy_heads: int = 0) -> str:
    """Return the config lines that build the network and load the weights.

    For 'mmpretrain' they are a whole model; for detectors what a child of
    the detector's config has to change.
    """
    backbone = architecture.cfg()
    intro = "# Lines for a child of your detector's config.\n"
    load_from = f'load_from = {checkpoint!r}\n'
    if to == 'mmpretrain':
        intro = ''
        if not architecture.is_cifar:
            backbone['out_indices'] = (3, )
        model = dict(type='ImageClassifier', backbone=backbone,
                     neck=dict(type='GlobalAveragePooling'))
        if head is not None and num_classes is not None:
            model['head'] = dict(_HEADS[head], num_classes=num_classes,
                                 in_channels=architecture.feat_dim)
    elif to == 'mmdet-backbone':
        load_from = ''
        backbone['init_cfg'] = dict(type='Pretrained', checkpoint=checkpoint)
        model = dict(backbone=backbone)
    else:
        backbone['init_cfg'] = None  # all weights come from load_from
        model = dict(backbone=backbone)
        form = 'cls_predictor_cfg.form=released'
        if cauchy_heads == 1:
            model['roi_head'] = dict(
                bbox_head=dict(cls_predictor_cfg=dict(form='released')))
        elif cauchy_heads:
            forms = ' '.join(f'model.roi_head.bbox_head.{i}.{form}'
                             for i in range(cauchy_heads))
            intro += f'# Add to the command line: --cfg-options {forms}\n'
    return f'{intro}model = {_render(model)}\n{load_from}'


def _render(value: Any, indent: int = 0) -> str:
    """Write nested dicts as OpenMMLab's configs do."""
    if not isinstance(value, dict):
        return repr(value)
    inner = indent + 4
    items = (f'{" " * inner}{key}={_render(item, inner)}'
             for key, item in value.items())
    return 'dict(\n' + ',\n'.join(items) + ')'
