"""Find the weights in a checkpoint's content, and what it says of itself."""
import argparse
import json
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch import Tensor

from apa_mm.weights.errors import require
from apa_mm.weights.load_check import is_finite

#: Entries that hold a state dict, the trained weights before their average.
ENTRIES = ('state_dict', 'model', 'ema_state_dict', 'model_ema',
           'state_dict_ema')
AVERAGED = ENTRIES[2:]
#: Put before every name by DDP, EMA and torch.compile.
_WRAPPED = re.compile(r'^(?:module\.|_orig_mod\.)+')
#: Counters of averaged models.
COUNTERS = ('n_averaged', 'steps')


class Facts(NamedTuple):
    """What a file says besides its weights.

    ``form`` is 'authors', 'mmengine', 'mmdet-2', 'safetensors' or ''; ``head``
    'linear', 'cosine', 'lr_cosine', 'norm' or 'inv'.
    """

    entry: str = ''  # where the weights were, '' for a bare state dict
    form: str = ''
    head: Optional[str] = None  # the authors' classif_norm
    dataset: Optional[str] = None  # the authors' dset_name
    offset: Optional[str] = None  # the authors' logit correction iif
    epoch: Optional[int] = None  # at which it was saved
    classes: Optional[Tuple[str, ...]] = None
    meta: Dict[str, Any] = {}  # of an mmengine file, or of our own


class Weights(NamedTuple):
    """Tensors without wrappers' prefixes, and why others were left out."""

    tensors: Dict[str, Tensor]
    dropped: Dict[str, str]
    facts: Facts


def find_weights(content: Dict[str, Any], averaged: bool = False,
                 metadata: Optional[Dict[str, str]] = None) -> Weights:
    """Find the state dict among the entries of a file."""
    entry = _choose(content, averaged)
    state = content[entry] if entry else content
    tensors: Dict[str, Tensor] = {}
    dropped: Dict[str, str] = {}
    for name, value in state.items():
        require(isinstance(name, str), f'its state dict has the name {name!r}'
                ', which is no text; save the state dict anew')
        short = _WRAPPED.sub('', name)
        if short in COUNTERS and entry in AVERAGED:
            dropped[name] = 'counter of the moving average'
            continue
        require(short not in tensors, f'{short!r} is in the file twice, with '
                'and without the prefix module. or _orig_mod.; keep one')
        tensors[short] = _plain(short, value)
    require(bool(tensors),
            'its state dict is empty; name a file that holds weights')
    facts = _facts(content, entry)
    if metadata:
        try:
            meta = _dict_or_empty(json.loads(metadata.get('meta', '{}')))
        except (ValueError, RecursionError):
            meta = {}
        facts = facts._replace(
            form='safetensors', meta=meta, classes=_classes(meta))
    return Weights(tensors, dropped, facts)


def _dict_or_empty(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def check_finite(tensors: Dict[str, Tensor]) -> List[str]:
    """Return the names of tensors that hold NaN or infinity."""
    return [n for n, value in tensors.items() if not is_finite(value)]


def _choose(content: Dict[str, Any], averaged: bool) -> str:
    """Return the entry that holds the weights, '' for the content itself."""
    found = [key for key in ENTRIES if isinstance(content.get(key), dict)]
    if averaged:
        found = [key for key in found if key in AVERAGED]
        require(bool(found), 'it holds no moving average (expected one of '
                f'{", ".join(AVERAGED)}); leave out --ema')
    if found:
        return found[0]
    keys = ', '.join(sorted(map(str, content))[:6])
    require(any(isinstance(value, Tensor) for value in content.values()),
            f'it holds no state dict (its entries: {keys}); expected one of '
            f'{", ".join(ENTRIES)}, or tensors by name')
    return ''


def _plain(name: str, value: Any) -> Tensor:
    require(isinstance(value, Tensor), f'{name!r} is a {type(value).__name__},'
            ' not a tensor; name a file that holds a state dict')
    require(value.layout == torch.strided and not (
        value.is_quantized or value.is_meta or value.is_complex()),
            f'{name!r} is a {value.dtype} tensor of a special kind (sparse, '
            'quantized, complex or without data); expected dense numbers')
    return value.detach()


def _facts(content: Dict[str, Any], entry: str) -> Facts:
    if not entry:
        return Facts()
    meta, args, epoch = map(content.get, ('meta', 'args', 'epoch'))
    meta = _dict_or_empty(meta)
    values = vars(args) if isinstance(args, argparse.Namespace) else {}
    if values:
        form = 'authors'
    elif 'mmdet_version' in meta and 'message_hub' not in content:
        form = 'mmdet-2'
    else:
        form = 'mmengine' if meta or 'message_hub' in content else ''
    head, dataset, offset = (
        value if isinstance(value, str) and value else None
        for value in map(values.get, ('classif_norm', 'dset_name', 'iif')))
    if 'classif_norm' in values:
        head = head or 'linear'
    return Facts(entry, form, head, dataset, offset,
                 epoch if isinstance(epoch, int) else None, _classes(meta),
                 meta)


def _classes(meta: Dict[str, Any]) -> Optional[Tuple[str, ...]]:
    """Return class names from mmengine's or mmdet 2's meta."""
    dataset = _dict_or_empty(meta.get('dataset_meta'))
    names = dataset.get('classes', dataset.get('CLASSES'))
    names = meta.get('CLASSES') if names is None else names
    known = isinstance(names, (list, tuple)) and all(
        isinstance(name, str) for name in names)
    return tuple(names) if known else None


def plain_values(value: Any) -> Any:
    """Return values that any ``torch.load`` takes: no arrays, no objects.

    Example:
        >>> import numpy as np
        >>> plain_values(dict(palette=np.zeros((1, 3), int), classes=('a', )))
        {'palette': [[0, 0, 0]], 'classes': ('a',)}
    """
    if isinstance(value, dict):
        return {str(k): plain_values(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain_values(v) for v in value)
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    known = isinstance(value, (str, int, float)) or value is None
    return value if known else str(value)
