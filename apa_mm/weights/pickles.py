"""Unpickle weights without running anything that a file names.

A pickle is a program: it calls what it names. :class:`WeightsUnpickler` takes
the instructions that ``torch.save`` and mmengine write, and answers names by
:mod:`~apa_mm.weights.constructors` alone.
"""
import argparse
import collections
import pickle
from typing import IO, Any, Callable, Dict, List, Tuple

import numpy as np
import torch

from .constructors import (Constructors, Name, Storage, are_sizes, checked_key,
                           fill_array, fill_history)
from .errors import CheckpointError, require

_PLAIN_OPCODES = (
    'PROTO STOP MARK NONE NEWFALSE NEWTRUE BININT BININT1 BININT2 LONG1 '
    'BINFLOAT BINUNICODE SHORT_BINSTRING EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 '
    'TUPLE3 EMPTY_LIST EMPTY_DICT BINPUT LONG_BINPUT BINGET LONG_BINGET '
    'GLOBAL BINPERSID').split()


class _Instructions(dict):
    """What to do at each opcode."""

    def __missing__(self, opcode: int) -> Any:
        raise CheckpointError(
            f'its pickle has the instruction {bytes([opcode])!r}, which '
            'torch.save does not write unless asked for another protocol; '
            'save it anew with the default')


# pickle._Unpickler is the form in Python: its instructions can be chosen, and
# unlike the form in C it reserves no memory for a number in the file.
class WeightsUnpickler(pickle._Unpickler):
    """Build what a pickle holds, of known constructors alone.

    ``num_bytes`` is the size of the whole file. ``load_storage`` gets key,
    dtype, bytes claimed and the place where it was ('cpu', 'cuda:0').
    """

    dispatch = _Instructions({
        opcode: pickle._Unpickler.dispatch[opcode]
        for opcode, in (getattr(pickle, name) for name in _PLAIN_OPCODES)})

    def __init__(self, stream: IO[bytes], num_bytes: int,
                 load_storage: Callable[..., Storage]) -> None:
        super().__init__(stream, encoding='utf-8', errors='surrogateescape')
        self._load_storage = load_storage
        self._storages: Dict[str, Storage] = {}
        self._stored = 0
        self._build_from = Constructors(num_bytes)
        self._answers = dict(self._build_from.answers)
        self._callable = {id(value) for value in self._answers.values()}

    def load(self) -> Any:
        """Return the object."""
        try:
            return super().load()
        except CheckpointError:
            raise
        except Exception as error:
            # Hostile bytes can make the unpickler fail in any way it knows.
            raise CheckpointError(
                'it is truncated or damaged, or no file of torch.save '
                f'({type(error).__name__} while reading its pickle)') from None

    # --- names and what may be done with them ---
    def find_class(self, module: str, name: str) -> Any:
        """Return the answer to a name."""
        full = f'{module}.{name}'.replace('__builtin__.', 'builtins.')
        if module == 'torch' and isinstance(
                getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if full in self._answers:
            return self._answers[full]
        users = _users_own(full)
        require(users is not None,
                f'its pickle wants {full}, and loading would have to run '
                'that; where the file was made, save '
                'dict(state_dict=model.state_dict()) and use that file')
        self._answers[full] = users
        self._callable.add(id(users))
        return users

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage of ('storage', type, key, place, items)."""
        require(isinstance(pid, tuple) and len(pid) in (5, 6)
                and pid[0] == 'storage' and isinstance(pid[1], Name)
                and isinstance(pid[1].dtype, torch.dtype)
                and isinstance(pid[2], str) and isinstance(pid[3], str)
                and are_sizes(pid[4:5]) and pid[5:] in ((), (None, )),
                'it refers to data in a way that torch.save does not')
        dtype, key, place, items = pid[1].dtype, *pid[2:5]
        if key not in self._storages:
            size = items * dtype.itemsize
            self._stored += size
            self._build_from.check_claim(self._stored)
            self._storages[key] = self._load_storage(key, dtype, size, place)
        return self._storages[key]

    def _reduce(self) -> None:
        args, function = self.stack.pop(), self.stack[-1]
        require(id(function) in self._callable
                and not isinstance(function, Name),
                'its pickle calls what is no constructor of weights or plain '
                'values; do not use it')
        self.stack[-1] = function(*args)

    def _new(self) -> None:
        args, kind = self.stack.pop(), self.stack.pop()
        if isinstance(kind, Name) and args == ():
            if kind.name == 'Namespace':
                return self.append(argparse.Namespace())
            if kind.name == 'HistoryBuffer':
                from mmengine.logging import HistoryBuffer
                return self.append(HistoryBuffer())
        elif id(kind) in self._callable and isinstance(kind, type):
            return self.append(kind.__new__(kind, *args))  # the user's own
        raise CheckpointError('its pickle makes an object of a class that it '
                              'may not; do not use it')

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.ndarray):
            return fill_array(target, state)
        if isinstance(target, np.dtype):
            # The byte order; all else belongs to records and objects.
            if state[1] in ('<', '|', '=') and not any(state[2:5]):
                return None
        elif id(type(target)) in self._callable:  # the user's own
            if hasattr(target, '__setstate__'):
                return target.__setstate__(state)
            return vars(target).update(state)
        elif isinstance(state, dict) and all(type(k) is str for k in state):
            self._build_from.spend(len(state))
            if type(target) is argparse.Namespace or (
                    type(target) is collections.OrderedDict
                    and set(state) <= {'_metadata'}):
                return vars(target).update(state)
            if type(target).__name__ == 'HistoryBuffer':
                return fill_history(target, state)
        raise CheckpointError('its pickle gives an object a state that it '
                              'cannot have; it is damaged or hostile')

    def _set_items(self, pairs: List[Any]) -> None:
        target = self.stack[-1]
        require(type(target) in (dict, collections.OrderedDict),
                'its pickle stores items in what is no dict; do not use it')
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[checked_key(key)] = value

    def _append_items(self, items: List[Any]) -> None:
        require(type(self.stack[-1]) is list,
                'its pickle appends to what is no list; do not use it')
        self.stack[-1].extend(items)

    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.NEWOBJ[0]] = _new
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = lambda self: self._set_items(
        [self.stack.pop(-2), self.stack.pop()])
    dispatch[pickle.SETITEMS[0]] = lambda me: me._set_items(me.pop_mark())
    dispatch[pickle.APPEND[0]] = lambda me: me._append_items([me.stack.pop()])
    dispatch[pickle.APPENDS[0]] = lambda me: me._append_items(me.pop_mark())


def _users_own(full: str) -> Any:
    """Return what the user has put on torch's own list of allowed names.

    Parts of torch put themselves there too; weights need none of them.
    """
    listed = getattr(torch.serialization, 'get_safe_globals', list)()
    for entry in listed:
        value, name = entry if isinstance(entry, tuple) else (
            entry, f'{entry.__module__}.{entry.__qualname__}')
        if name == full and not full.startswith('torch.'):
            return value
    return None


#: Levels of dicts and lists, and values counted as often as they are reached.
MAX_DEPTH = 100
MAX_VALUES = 20_000_000


def check_nesting(content: Any) -> None:
    """Refuse what is nested so that walking through it would not end."""
    sizes: Dict[int, Tuple[int, int]] = {}  # id -> (values, depth)
    stack: List[Tuple[Any, bool]] = [(content, False)]
    open_ids = set()
    while stack:
        node, done = stack.pop()
        if id(node) in sizes:
            continue
        inside = _members(node)
        if done:
            known = [sizes.get(id(child), (1, 0)) for child in inside]
            values = 1 + sum(count for count, _ in known)
            depth = 1 + max((level for _, level in known), default=0)
            require(values <= MAX_VALUES and depth <= MAX_DEPTH,
                    'its values are nested without an end in reach; it is '
                    'damaged or made to keep the reader busy')
            sizes[id(node)] = values, depth
        elif inside:
            require(id(node) not in open_ids, 'it holds itself; it is damaged '
                    'or made to keep the reader busy')
            open_ids.add(id(node))
            stack.append((node, True))
            stack += [(child, False) for child in inside
                      if id(child) not in sizes]


def _members(node: Any) -> list:
    if isinstance(node, argparse.Namespace):
        node = vars(node)
    if isinstance(node, dict):
        return list(node.values())
    return list(node) if type(node) in (list, tuple) else []
