"""Find out what loading a state dict would do, without doing it."""
import copy
from typing import Dict, List, NamedTuple

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from apa_mm.weights.pretrained import Comparison

__all__ = ['rehearse_loading', 'unwrap']


class _Progress(NamedTuple):
    """Names seen so far; ``used`` are those of the file that found a home."""

    matched: List[str]
    missing: List[str]
    reshaped: List[str]
    used: List[str]


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside DDP and test-time-augmentation wrappers."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def rehearse_loading(model: nn.Module,
                     state_dict: Dict[str, Tensor]) -> Comparison:
    """Compare a model with a state dict as non-strict loading would.

    A plain comparison of names and shapes is not enough: a module may rename
    old keys or resize a buffer while it loads. Such modules are asked on a
    copy; the model itself stays as it is. ``num_batches_tracked`` of a
    BatchNorm may be absent, as for mmengine.

    Args:
        model (nn.Module): The model without wrappers.
        state_dict (dict[str, Tensor]): What a file holds.

    Returns:
        Comparison: Names that match, are missing in the file, are left over
        in it, and differ in shape.

    Example:
        >>> rehearse_loading(nn.Linear(2, 1), dict(weight=torch.ones(1, 3)))
        Comparison(matched=[], missing=['bias'], unexpected=[], \
reshaped=['weight'])
    """
    progress = _Progress([], [], [], [])
    metadata = getattr(state_dict, '_metadata', {})
    _rehearse(model, dict(state_dict), '', metadata, progress)
    used = set(progress.used)
    return Comparison(
        matched=progress.matched,
        missing=[
            name for name in progress.missing
            if not name.endswith('num_batches_tracked')
        ],
        unexpected=[name for name in state_dict if name not in used],
        reshaped=progress.reshaped)


def _rehearse(module: nn.Module, state: Dict[str, Tensor], prefix: str,
              metadata: dict, progress: _Progress) -> None:
    if _loads_its_own_way(module):
        before = set(state)
        module = _try_on_copy(module, state, prefix, metadata)
        progress.used.extend(before - set(state))
    for name, tensor in _own_tensors(module).items():
        key = prefix + name
        if key not in state:
            progress.missing.append(key)
            continue
        progress.used.append(key)
        same = state[key].shape == tensor.shape
        (progress.matched if same else progress.reshaped).append(key)
    for name, child in module.named_children():
        start = f'{prefix}{name}.'
        inside = {k: v for k, v in state.items() if k.startswith(start)}
        _rehearse(child, inside, start, metadata, progress)


def _own_tensors(module: nn.Module) -> Dict[str, Tensor]:
    """Return the parameters and saved buffers that are the module's own."""
    buffers = {
        name: buffer
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }
    return {**dict(module.named_parameters(recurse=False)), **buffers}


def _loads_its_own_way(module: nn.Module) -> bool:
    owner = next(base for base in type(module).__mro__
                 if '_load_from_state_dict' in vars(base))
    return (not owner.__module__.startswith('torch.')
            or len(module._load_state_dict_pre_hooks) > 0)


def _try_on_copy(module: nn.Module, state: Dict[str, Tensor], prefix: str,
                 metadata: dict) -> nn.Module:
    """Load ``state``, which may be changed, into a copy of one module.

    Children are shared with the copy, its own tensors are not.
    """
    twin = copy.copy(module)
    twin._parameters = {
        name: value if value is None else nn.Parameter(
            torch.empty_like(value), requires_grad=False)
        for name, value in module._parameters.items()
    }
    twin._buffers = {
        name: value if value is None else torch.empty_like(value)
        for name, value in module._buffers.items()
    }
    twin._load_from_state_dict(state, prefix, metadata.get(prefix[:-1], {}),
                               False, [], [], [])
    return twin
