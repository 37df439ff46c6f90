"""What the names in a checkpoint build: plain data, argument by argument.

Files choose the arguments, so every constructor checks all of them: tensors
stay inside their storage, arrays hold numbers and exactly their bytes, keys
of a dict are plain values (the hash of nested tuples can take for ever), and
what copies something is counted.
"""
import collections
import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from .errors import require

_STORAGES = dict(
    BoolStorage=torch.bool, ByteStorage=torch.uint8, CharStorage=torch.int8,
    ShortStorage=torch.int16, IntStorage=torch.int32, LongStorage=torch.int64,
    HalfStorage=torch.half, BFloat16Storage=torch.bfloat16,
    FloatStorage=torch.float, DoubleStorage=torch.double,
    ComplexFloatStorage=torch.cfloat, ComplexDoubleStorage=torch.cdouble,
    UntypedStorage=torch.uint8)  # yapf: disable
#: Numbers only: an array of objects is memory that a file may interpret.
_DTYPES = tuple('b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8'.split())
#: What a pickled HistoryBuffer and schedule refer to.
_METHODS = {
    'HistoryBuffer': ('min', 'max', 'mean', 'current'),
    'OneCycleParamScheduler': ('_annealing_cos', '_annealing_linear'),
}
#: Classes of which a file may only say that it means them.
_CLASSES = ('mmengine.logging.history_buffer.HistoryBuffer',
            'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler',
            'argparse.Namespace', 'numpy.ndarray', 'torch.Tensor',
            'torch.nn.parameter.Parameter')
_KEYS = (str, int, float, bool, type(None))
#: Copies, in items, that one byte of a pickle may ask for.
_WORK = 16
#: How much more than the file tied weights and expanded tensors may claim.
_SHARING = 16


@dataclass(frozen=True, eq=False)
class Storage:
    """Memory of tensors: its bytes (uint8, any device), and what they are."""

    data: Tensor
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Name:
    """Stands for a class that a file may name but not call."""

    name: str
    dtype: Optional[torch.dtype] = None


class Constructors:
    """Everything that a file of ``num_bytes`` bytes may name.

    ``answers`` has what stands for each name: a function may be called by
    the file, a :class:`Name` may not.
    """

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._claimed = self._work = 0
        self.answers: Dict[str, Any] = {
            **{f'torch.{k}': Name(k, dtype) for k, dtype in _STORAGES.items()},
            **{full: Name(full.rpartition('.')[2]) for full in _CLASSES},
            'torch.storage.UntypedStorage': Name('UntypedStorage',
                                                 torch.uint8),
            'torch._utils._rebuild_tensor': self.tensor,
            'torch._utils._rebuild_tensor_v2': self.tensor,
            'torch._utils._rebuild_tensor_v3': self.typed_tensor,
            'torch._utils._rebuild_parameter': _parameter,
            'torch._utils._rebuild_parameter_with_state': _parameter,
            'torch._tensor._rebuild_from_type_v2': self.from_type,
            'torch.Size': self.size,
            # A word and a number, nothing is opened.
            'torch.device': lambda *place: torch.device(*place),
            'numpy.dtype': _dtype,
            '_codecs.encode': self.encode,
            'collections.OrderedDict': self.ordered_dict,
            'collections.Counter': self.counter,
            'builtins.set': self.make_set,
            'builtins.frozenset': self.make_set,
            'builtins.bytes': lambda: b'',
            'builtins.complex': lambda a, b: complex(float(a), float(b)),
            'builtins.slice': _slice,
            'builtins.getattr': _known_method,
        }
        for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
            self.answers[f'{module}._reconstruct'] = lambda *_: np.empty(0)
            self.answers[f'{module}.scalar'] = _scalar

    def spend(self, items: int) -> None:
        """Count work that the length of the pickle does not bound."""
        self._work += items
        require(self._work <= max(2**20, _WORK * self._num_bytes),
                'its pickle copies the same values again and again; it is '
                'made to fill the memory')

    def check_claim(self, claimed: int, sharing: int = 1) -> None:
        """Refuse more bytes than ``sharing`` times the file has."""
        require(claimed <= sharing * self._num_bytes,
                f'its header claims {claimed:.3g} bytes of weights, but the '
                f'file has {self._num_bytes}; it is damaged or made to fill '
                'the memory')

    def tensor(self, storage: Storage, offset: int, size: Tuple[int, ...],
               stride: Tuple[int, ...], requires_grad: bool = False,
               hooks: Any = None, metadata: Any = None) -> Tensor:
        """Answer ``torch._utils._rebuild_tensor_v2`` and its elder."""
        return self.typed_tensor(storage, offset, size, stride, requires_grad,
                                 hooks, storage.dtype, metadata)

    def typed_tensor(self, storage: Storage, offset: int,
                     size: Tuple[int, ...], stride: Tuple[int, ...],
                     requires_grad: bool, hooks: Any, dtype: torch.dtype,
                     metadata: Any = None) -> Tensor:
        """Answer ``torch._utils._rebuild_tensor_v3``."""
        require(type(storage) is Storage and isinstance(dtype, torch.dtype)
                and not str(dtype).startswith('torch.q')  # quantized
                and isinstance(size, tuple) and isinstance(stride, tuple)
                and len(size) == len(stride) <= 64 and not metadata
                and are_sizes((offset, *size, *stride)),
                'one of its tensors is none of torch.save; it is damaged')
        claimed = math.prod(size) * dtype.itemsize
        self._claimed += claimed
        self.check_claim(self._claimed, _SHARING)
        last = offset + sum(
            (n - 1) * step for n, step in zip(size, stride, strict=True))
        data = storage.data
        require(not claimed or (last + 1) * dtype.itemsize <= data.numel(),
                f'a tensor of shape {tuple(size)} reaches beyond the '
                f'{data.numel()} bytes of its storage; the file is damaged or '
                'made to crash the reader')
        if data.is_meta:
            value = torch.empty_strided(
                size, stride, dtype=dtype, device='meta')
        elif claimed:
            value = torch.empty(0, dtype=dtype, device=data.device)
            value.set_(data.untyped_storage(), offset, size, stride)
        else:
            value = torch.empty(size, dtype=dtype, device=data.device)
        return value.requires_grad_() if requires_grad is True else value

    def from_type(self, function: Any, kind: Any, args: tuple,
                  state: Any) -> Tensor:
        """Answer ``_rebuild_from_type_v2``; attributes are left out."""
        require(function in (self.tensor, self.typed_tensor, _parameter),
                'it holds a tensor of a kind of its own')
        return function(*args)

    def encode(self, text: str, encoding: str = 'latin1') -> bytes:
        """Answer ``_codecs.encode``, by which bytes are written."""
        require(type(text) is str and encoding in ('latin1', 'latin-1'),
                'its pickle encodes text in a way that bytes are not written')
        self.spend(len(text))
        return text.encode('latin1')

    def ordered_dict(self, items: Any = ()) -> collections.OrderedDict:
        """Answer ``OrderedDict``."""
        self.spend(len(items))
        return collections.OrderedDict(
            (checked_key(key), value) for key, value in items)

    def counter(self, counts: dict) -> collections.Counter:
        """Answer ``Counter``."""
        self.spend(len(counts))
        require(type(counts) is dict
                and all(type(n) is int for n in counts.values()),
                'it holds a Counter without counts')
        return collections.Counter(counts)

    def make_set(self, items: list = ()) -> set:
        """Answer ``set`` and ``frozenset``."""
        self.spend(len(items))
        return {checked_key(item) for item in items}

    def size(self, sizes: tuple) -> torch.Size:
        """Answer ``torch.Size``."""
        self.spend(len(sizes))
        require(are_sizes(sizes), 'it holds a size that is none')
        return torch.Size(sizes)


def are_sizes(values: tuple) -> bool:
    """Return whether all are numbers that a size can have."""
    return all(type(n) is int and 0 <= n < 2**62 for n in values)


def checked_key(key: Any) -> Any:
    """Return a key of a dict or set, if its hash is plain."""
    require(type(key) in _KEYS,
            f'it has a {type(key).__name__} where a name or number is due; '
            'it is damaged or hostile')
    return key


def _parameter(data: Tensor, requires_grad: bool = True, hooks: Any = None,
               state: Any = None) -> nn.Parameter:
    return nn.Parameter(data.detach(), requires_grad is True)


def _dtype(name: str, *_: Any) -> np.dtype:
    require(name in _DTYPES,
            f'it holds an array of kind {name!r}; only numbers are taken')
    return np.dtype(name)


def _scalar(dtype: np.dtype, data: bytes) -> np.generic:
    require(isinstance(dtype, np.dtype) and type(data) is bytes
            and len(data) == dtype.itemsize,
            'one of its numbers has another size than its bytes')
    return np.frombuffer(data, dtype)[0]


def _slice(*bounds: Any) -> slice:
    require(all(n is None or type(n) is int for n in bounds),
            'it holds a slice that is none')
    return slice(*bounds)


def _known_method(owner: Any, name: str) -> Callable:
    require(isinstance(owner, Name) and name in _METHODS.get(owner.name, ()),
            f'its pickle asks for attribute {name!r}, but only the statistics '
            'methods of HistoryBuffer and the annealing methods of '
            'OneCycleParamScheduler are allowed; do not load this file unless '
            'you know who made it')
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
    kinds = dict(HistoryBuffer=HistoryBuffer,
                 OneCycleParamScheduler=OneCycleParamScheduler)
    return getattr(kinds[owner.name], name)


def fill_history(buffer: Any, state: dict) -> None:
    """Set the scalars; the statistics of a buffer stay mmengine's own."""
    values, counts = state['_log_history'], state['_count_history']
    require(isinstance(values, np.ndarray) and isinstance(counts, np.ndarray)
            and values.shape == counts.shape and values.ndim == 1
            and type(state['max_length']) is int,
            'its log has other values than scalars')
    buffer.max_length = state['max_length']
    buffer._log_history, buffer._count_history = values, counts


def fill_array(array: np.ndarray, state: Any) -> None:
    """Give an array its (version, shape, dtype, order, bytes)."""
    _, shape, dtype, fortran, data = state
    require(type(shape) is tuple and are_sizes(shape) and len(shape) <= 32
            and isinstance(dtype, np.dtype) and type(fortran) is bool
            and type(data) is bytes
            and len(data) == math.prod(shape) * dtype.itemsize,
            'one of its arrays has another size than its bytes')
    array.__setstate__((1, shape, dtype, fortran, data))
