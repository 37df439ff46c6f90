"""Configs of this package, parsed once per process, built without memory."""
import copy
import functools
from pathlib import Path
from typing import Dict, Iterator, Tuple

import torch
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
    'released_optim_wrapper', 'released_unit', 'seesaw', 'seresnet', 'trace',
    'train_list', 'width',
    # Of configs/lm.
    'accumulation', 'interval', 'micro_batch', 'warmup'
}


@functools.lru_cache(maxsize=None)
def parsed(name: str) -> Config:
    """Return a config by its path below the repository; do not change it."""
    return Config.fromfile(ROOT / name)


def load(name: str) -> Config:
    """Return a copy of a config of one's own, its scope set."""
    cfg = copy.deepcopy(parsed(name))
    init_default_scope(cfg.default_scope)
    return cfg


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
