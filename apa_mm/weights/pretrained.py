"""Check that a pretrained checkpoint fits before it is loaded.

mmengine loads with ``strict=False``: from a file in another layout it takes
nothing, warns once, and training goes on from random weights.
"""
import pickle
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader
from torch import Tensor

__all__ = ['Comparison', 'check_pretrained', 'compare_state_dicts']

#: Fewer matching tensors than this share mean another architecture. From a
#: plain ResNet-50 an APA* network finds 318 of its 512 tensors.
MIN_MATCHED = 0.5


class Comparison(NamedTuple):
    """Names of the tensors of a model and of a file, compared."""

    matched: List[str]
    missing: List[str]
    unexpected: List[str]
    reshaped: List[str]

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing) + len(self.reshaped)
        return (f'{len(self.matched)} of {total} tensors match, '
                f'{_count(self.missing)} missing, '
                f'{_count(self.unexpected)} unexpected, '
                f'{_count(self.reshaped)} of another shape')


def _count(names: List[str]) -> str:
    shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
    return f'{len(names)} ({shown})' if names else '0'


def compare_state_dicts(model: Dict[str, Tensor],
                        file: Dict[str, Tensor]) -> Comparison:
    """Compare a model's state dict with that of a file, by name and shape.

    Args:
        model (dict[str, Tensor]): What the model has.
        file (dict[str, Tensor]): What the file has.

    Returns:
        Comparison: Four lists of names; "missing" is what the file lacks,
        "unexpected" what the model lacks.
    """
    shared = [name for name in model if name in file]
    reshaped = [n for n in shared if model[n].shape != file[n].shape]
    return Comparison(
        matched=[n for n in shared if n not in set(reshaped)],
        missing=[n for n in model if n not in file],
        unexpected=[n for n in file if n not in model],
        reshaped=reshaped)


def check_pretrained(module: BaseModule) -> None:
    """Refuse a ``Pretrained`` init whose file does not fit the module.

    Does nothing without a ``Pretrained`` entry in ``module.init_cfg``.

    Args:
        module (BaseModule): Module about to initialise its weights.

    Raises:
        FileNotFoundError: If the file is not there.
        ValueError: If the file holds no state dict, fewer than half of the
            module's tensors, a tensor of another shape, or more blocks than
            the module has.
    """
    cfgs = module.init_cfg
    for cfg in cfgs if isinstance(cfgs, list) else [cfgs or {}]:
        if cfg.get('type') == 'Pretrained':
            _check_file(module, cfg['checkpoint'], cfg.get('prefix'))


def _check_file(module: BaseModule, path: str, prefix: Optional[str]) -> None:
    name = module.__class__.__name__
    tensors = _read_state_dict(path)
    if prefix:
        stem = prefix if prefix.endswith('.') else prefix + '.'
        tensors = {
            k[len(stem):]: v
            for k, v in tensors.items() if k.startswith(stem)
        }
    found = compare_state_dicts(module.state_dict(), tensors)
    children = dict(module.named_children())
    foreign = [n for n in found.unexpected if n.split('.')[0] in children]
    total = len(module.state_dict())
    if len(found.matched) < MIN_MATCHED * total or found.reshaped or foreign:
        hint = 'name a checkpoint of the same architecture'
        if prefix is None and any(k.startswith('backbone.') for k in tensors):
            hint = "set prefix='backbone.' in init_cfg"
        raise ValueError(f'checkpoint {path} does not fit {name}: {found}; '
                         f'{hint}')
    print_log(f'{name} from {path}: {found}', logger='current')


def _read_state_dict(path: str) -> Dict[str, Tensor]:
    if '://' not in path and not Path(path).is_file():
        raise FileNotFoundError(
            f'pretrained checkpoint {path} does not exist; make it with '
            'tools/convert_checkpoint.py, name another in init_cfg, or train '
            'from scratch with --cfg-options model.backbone.init_cfg=None')
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except pickle.UnpicklingError:
        # Raw files of the authors hold their command line beside the weights.
        raise ValueError(
            f'torch refuses to load checkpoint {path} as plain weights; '
            'convert it with tools/convert_checkpoint.py') from None
    if isinstance(checkpoint, dict) and 'state_dict' in checkpoint:
        checkpoint = checkpoint['state_dict']
    if not isinstance(checkpoint, dict) or not all(
            isinstance(value, Tensor) for value in checkpoint.values()):
        keys = sorted(checkpoint) if isinstance(checkpoint, dict) else []
        raise ValueError(
            f"checkpoint {path} has no 'state_dict' (its keys: {keys[:6]}), "
            'and mmengine would load nothing from it; convert it with '
            'tools/convert_checkpoint.py')
    return checkpoint
