"""Check that a ``Pretrained`` checkpoint fits before it is loaded."""
from pathlib import Path
from typing import Dict, Optional

from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from torch import Tensor

from .errors import CheckpointError, require
from .load_check import (CONVERT, Comparison, find_gaps, refuse_broken,
                         rehearse_loading, state_dict_of)


def check_pretrained(module: BaseModule) -> None:
    """Refuse a file of ``Pretrained`` in ``init_cfg`` that does not fit.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If the file holds no state dict, lacks a tensor of the
            module, has one of another shape or with NaN, or has more blocks
            than the module. A classifier may be left over.
    """
    cfgs = module.init_cfg
    for cfg in cfgs if isinstance(cfgs, list) else [cfgs or {}]:
        if cfg.get('type') == 'Pretrained':
            _check_file(module, cfg['checkpoint'], cfg.get('prefix'))


def _check_file(module: BaseModule, path: str, prefix: Optional[str]) -> None:
    name = module.__class__.__name__
    if '://' not in path and not Path(path).expanduser().is_file():
        raise FileNotFoundError(
            f'pretrained checkpoint {path} does not exist; make it with '
            'tools/convert_checkpoint.py, name another in init_cfg, or train '
            'from scratch with --cfg-options model.backbone.init_cfg=None')
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    try:
        tensors = state_dict_of(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from None
    if prefix:
        stem = prefix.removesuffix('.') + '.'
        tensors = {k.removeprefix(stem): v for k, v in tensors.items()
                   if k.startswith(stem)}
    found = rehearse_loading(module, tensors)
    children = dict(module.named_children())
    foreign = [n for n in found.unexpected if n.split('.')[0] in children]
    require(not (find_gaps(found, whole=True) or foreign),
            f'checkpoint {path} does not fit {name}: {found}; '
            f'{_hint(found, tensors, prefix)}')
    refuse_broken(f'checkpoint {path}', module, tensors, found)
    print_log(f'{name} from {path}: {found}', logger='current')


def _hint(found: Comparison, tensors: Dict[str, Tensor],
          prefix: Optional[str]) -> str:
    if prefix is None and any(k.startswith('backbone.') for k in tensors):
        return "set prefix='backbone.' in init_cfg"
    if any(name.endswith(('.kappa', '.lambd')) for name in found.missing):
        return ('kappa and lambda would stay random; give the file what it '
                f'lacks with {CONVERT}, or name a checkpoint of the same '
                'architecture')
    return ('name a checkpoint of the same architecture, or convert one with '
            f'{CONVERT}')
