"""Hold a state dict against a model, before any of it is applied."""
import copy
from typing import Any, Dict, List, NamedTuple, Set

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from apa_mm.utils.tables import show

from .errors import printable, require

CONVERT = ('tools/convert_checkpoint.py SRC DST --to mmdet-backbone (or '
           'mmpretrain, mmdet)')


class Comparison(NamedTuple):
    """Names of the tensors of a model and of a file, compared."""

    matched: List[str]
    missing: List[str]  # what the file lacks
    unexpected: List[str]  # what the model lacks
    reshaped: List[str]

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing) + len(self.reshaped)
        return (f'{len(self.matched)} of {total} tensors match, '
                f'{counted(self.missing)} missing, '
                f'{counted(self.unexpected)} unexpected, '
                f'{counted(self.reshaped)} of another shape')


def counted(names: List[str], none: str = '0') -> str:
    """Return how many names there are, with the first three."""
    return f'{len(names)} ({printable(show(names))})' if names else none


def state_dict_of(checkpoint: Any) -> Dict[str, Tensor]:
    """Return the tensors that mmengine would load, without ``module.``."""
    content = checkpoint if isinstance(checkpoint, dict) else {}
    tensors = content.get('state_dict', checkpoint)
    require(isinstance(tensors, dict) and all(
        isinstance(value, Tensor) for value in tensors.values()),
            "the checkpoint has no 'state_dict' (its keys: "
            f'{sorted(map(str, content))[:6]}), so nothing would be loaded '
            f'from it; convert it with {CONVERT}')
    stripped = type(tensors)(
        (name.removeprefix('module.'), value)
        for name, value in tensors.items())
    if hasattr(tensors, '_metadata'):
        stripped._metadata = tensors._metadata
    return stripped


def find_gaps(found: Comparison, whole: bool = False) -> List[str]:
    """Return what must not stay at its random start.

    Heads, classifiers and necks may be new, and a part that the file does not
    have at all may be. What it has must be complete in kappa, lambda and
    blocks, and a backbone, or with ``whole`` all, in everything.
    """
    present = {_part(name) for name in found.matched}
    blocks = {_block(name) for name in found.matched} | {''}

    def matters(name: str) -> bool:
        if whole or name.startswith('backbone.'):
            return True
        learned = name.endswith(('.kappa', '.lambd'))
        return _part(name) in present and (
            learned or _block(name) not in blocks)

    return [name for name in found.missing if matters(name)] + [
        n for n in found.reshaped if whole or n.startswith('backbone.')]


def _part(name: str) -> str:
    """Return the innermost head that a name belongs to, or its first part."""
    parts = name.split('.')
    heads = [i for i, part in enumerate(parts) if part.endswith('head')]
    return '.'.join(parts[:max(heads, default=0) + 1])


def _block(name: str) -> str:
    """Return the name up to its last number, '' without one."""
    parts = name.split('.')
    last = max((i for i, p in enumerate(parts) if p.isdigit()), default=-1)
    return '.'.join(parts[:last + 1])


def find_broken(model: nn.Module, state_dict: Dict[str, Tensor],
                names: List[str]) -> List[str]:
    """Return what has NaN, infinity or complex numbers, unlike the model."""
    broken = [n for n in names if n in state_dict and not is_finite(
        state_dict[n])]
    own = model.state_dict() if broken else {}
    return [name for name in broken if name not in own or is_finite(own[name])]


def refuse_broken(source: str, model: nn.Module, tensors: Dict[str, Tensor],
                  found: Comparison) -> None:
    """Refuse a ``source`` with :func:`find_broken` in what matches."""
    broken = find_broken(model, tensors, found.matched)
    require(not broken,
            f'{source} holds complex numbers, NaN or infinity in '
            f'{len(broken)} of its tensors, the first is '
            f'{"".join(broken[:1])}; take an earlier one')


def is_finite(value: Tensor) -> bool:
    """Return whether a tensor holds real numbers without NaN or infinity."""
    if value.is_complex():
        return False
    if not value.is_floating_point() or value.is_meta:
        return True
    # torch does not compare float8.
    wide = value.float() if value.itemsize == 1 else value
    return bool(torch.isfinite(wide).all())


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside DDP and test-time-augmentation wrappers."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def rehearse_loading(model: nn.Module,
                     state_dict: Dict[str, Tensor]) -> Comparison:
    """Compare a model with a state dict as non-strict loading would.

    A module that may rename old keys or resize a buffer while it loads is
    asked on a copy. ``num_batches_tracked`` may be absent, as for mmengine.
    """
    found = Comparison([], [], [], [])
    unused = set(state_dict)
    _rehearse(model, dict(state_dict), '',
              getattr(state_dict, '_metadata', {}), found, unused)
    return found._replace(
        missing=[n for n in found.missing
                 if not n.endswith('num_batches_tracked')],
        unexpected=[name for name in state_dict if name in unused])


def _rehearse(module: nn.Module, state: Dict[str, Tensor], prefix: str,
              metadata: dict, found: Comparison, unused: Set[str]) -> None:
    if _loads_its_own_way(module):
        before = set(state)
        module = _try_on_copy(module, state, prefix, metadata)
        unused -= before - set(state)
    for name, tensor in _own_tensors(module).items():
        key = prefix + name
        unused.discard(key)
        if key not in state:
            found.missing.append(key)
        elif state[key].shape == tensor.shape:
            found.matched.append(key)
        else:
            found.reshaped.append(key)
    for name, child in module.named_children():
        start = f'{prefix}{name}.'
        inside = {k: v for k, v in state.items() if k.startswith(start)}
        _rehearse(child, inside, start, metadata, found, unused)


def _own_tensors(module: nn.Module) -> Dict[str, Tensor]:
    """Return the parameters and saved buffers that are the module's own."""
    return dict(module.named_parameters(recurse=False)) | {
        name: buffer for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set}


def _loads_its_own_way(module: nn.Module) -> bool:
    owner = next(base for base in type(module).__mro__
                 if '_load_from_state_dict' in vars(base))
    return (not owner.__module__.startswith('torch.')
            or len(module._load_state_dict_pre_hooks) > 0)


def _try_on_copy(module: nn.Module, state: Dict[str, Tensor], prefix: str,
                 metadata: dict) -> nn.Module:
    """Load ``state``, which may be changed, into a copy of a module alone."""
    twin = copy.copy(module)
    twin._parameters = {
        name: value if value is None else nn.Parameter(
            torch.empty_like(value), requires_grad=False)
        for name, value in module._parameters.items()}
    twin._buffers = {
        name: value if value is None else torch.empty_like(value)
        for name, value in module._buffers.items()}
    twin._load_from_state_dict(state, prefix, metadata.get(prefix[:-1], {}),
                               False, [], [], [])
    return twin
