"""Configs of this package, parsed once per process, built without memory."""
import copy
import functools
from pathlib import Path
from typing import Dict, Iterator, Tuple

import pytest
import torch
from mmengine import fileio
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    p.relative_to(ROOT).as_posix() for p in (ROOT / 'configs').rglob('*.py')
    if '_base_' not in p.parts)
CLS = [c for c in CONFIGS if c.startswith('configs/cls/')]
DIGITS = [c for c in CLS if 'digits' in c]
RECIPES = [c for c in CLS if c not in DIGITS]
LM = [c for c in CONFIGS if c.startswith('configs/lm/')]
DET = [c for c in CONFIGS if c.startswith(('configs/det/', 'configs/demo/'))]
#: Top-level variables of configs that nothing reads.
HELPERS = {
    # The parent libraries'.
    'dataset_type', 'data_root', 'backend_args', 'train_pipeline',
    'test_pipeline', 'max_iter', 'max_iters', 'max_epochs', 'num_classes',
    'auto_scale_lr', 'default_scope', 'metainfo', 'vis_backends', 'bgr_mean',
    'bgr_std', 'custom_imports',
    # Ours.
    'attention_cfg', 'box_head', 'cosine_classifier', 'eqlv2', 'eqlv2_init',
    'ffn_cfgs', 'gate_cfg', 'gol_hooks', 'safe_hooks',
    'gol_init', 'image_scale', 'image_size', 'imbalance_factor', 'init_cfg',
    'loss_cls', 'released_backbone', 'released_classifier',
    'released_optim_wrapper', 'released_unit', 'sampled_sigmoid',
    'sampled_sigmoid_init', 'seesaw', 'seresnet', 'trace',
    'train_list', 'width',
    # Of configs/lm.
    'accumulation', 'interval', 'micro_batch', 'warmup'
}


def hasten(patch: pytest.MonkeyPatch) -> None:
    """Do not format configs, and read the libraries' lists of them once.

    yapf takes seconds for a detector's, several times in each run, and
    mmengine reads a hundred YAML files for every base like ``mmdet::...``.
    """
    for owner in ('mmengine.config.config', 'yapf.yapflib.yapf_api'):
        patch.setattr(f'{owner}.FormatCode', lambda text, **kwargs:
                      (text, False), raising=False)
    patch.setattr('mmengine.config.utils.load', functools.cache(fileio.load),
                  raising=False)


@functools.lru_cache(maxsize=None)
def parsed(name: str) -> Config:
    """Return a config by its path below the repository; do not change it."""
    return Config.fromfile(ROOT / name)


def load(name: str) -> Config:
    """Return a copy of a config of one's own, its scope set."""
    cfg = copy.deepcopy(parsed(name))
    init_default_scope(cfg.default_scope)
    return cfg


def box_heads(cfg: Config) -> Iterator[Tuple[str, dict]]:
    """Yield the box heads of a two-stage detector, by dotted key."""
    found, key = cfg.model.roi_head.bbox_head, 'model.roi_head.bbox_head'
    if isinstance(found, dict):
        yield key, found
    else:
        for i, head in enumerate(found):
            yield f'{key}.{i}', head


def narrow(cfg: Config, width: int = 16) -> Dict[str, object]:
    """Return overrides that make a two-stage detector ``width`` wide.

    mmdet's box heads draw and drop a classifier of the pyramid's channels
    times 49 inputs before they draw their own: seconds for V3Det's classes.
    """
    model = cfg.model
    result = {
        'model.backbone.base_channels': width,
        'model.neck.in_channels':
        [c * width // 64 for c in model.neck.in_channels],
    }
    keys = ['neck.out_channels', 'rpn_head.in_channels',
            'rpn_head.feat_channels',
            'roi_head.bbox_roi_extractor.out_channels']
    if 'mask_head' in model.roi_head:
        keys += ['roi_head.mask_roi_extractor.out_channels',
                 'roi_head.mask_head.in_channels',
                 'roi_head.mask_head.conv_out_channels']
    result.update((f'model.{key}', width) for key in keys)
    for key, _ in box_heads(cfg):
        result.update({f'{key}.in_channels': width,
                       f'{key}.fc_out_channels': 4 * width})
    return result


def build_on_meta(cfg: Config) -> BaseModel:
    """Build the model of a config with tensors that hold no numbers."""
    # Swin's drop path rates are numbers in a tensor, and GOL reads its counts.
    real = any(name in str(cfg.model) for name in ('Swin', 'GOLLoss'))
    device = 'cpu' if real else 'meta'
    with torch.device(device):
        return MODELS.build(cfg.model)


def settings(cfg: Config) -> Dict[str, object]:
    """Return what a Runner reads, by dotted key; no helper variables."""
    return dict(
        _flat({k: v for k, v in cfg.to_dict().items()
               if k not in HELPERS}, ''))


def _flat(value: object, key: str) -> Iterator[Tuple[str, object]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f'{key}.{name}' if key else name)
    elif isinstance(value, (list, tuple)) and any(
            isinstance(item, (dict, list, tuple)) for item in value):
        for i, item in enumerate(value):
            yield from _flat(item, f'{key}.{i}')
    else:
        yield key, value
