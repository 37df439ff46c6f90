"""Make mmengine's ``CheckpointLoader`` read by our reader, on either stack.

Without that torch before 2.6 runs whatever a file holds, OneDL's mmengine does
so when a safe load was refused, and downloads always do.
"""
import functools
import json
import os
from typing import Any, Callable
from unittest import mock

import torch

from .errors import CheckpointError, require
from .reading import read_checkpoint, read_stream


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Load a file as mmengine's function of this name does, but safely.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is damaged or holds more than weights.
    """
    filename = os.path.expanduser(filename)
    if not os.path.isfile(filename):
        raise FileNotFoundError(f'{filename} can not be found.')
    raw = read_checkpoint(filename, map_location)
    try:
        content = raw.content
        if 'meta' in raw.metadata:  # of a safetensors file that we wrote
            content = dict(
                meta=json.loads(raw.metadata['meta']), state_dict=content)
        return _checked(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f'{filename} cannot be used: {error}') from None


def _checked(content: dict) -> dict:
    """Refuse state dicts on which mmengine breaks; it prints their names."""
    tensors = content.get('state_dict', content)
    require(isinstance(tensors, dict), 'its state_dict is a '
            f'{type(tensors).__name__}; name a file that holds weights')
    for name in tensors:
        require(isinstance(name, str) and name.isprintable(),
                f'its state dict has the name {name!r}, which no module has')
    versions = getattr(tensors, '_metadata', {})
    require(isinstance(versions, dict) and all(
        isinstance(entry, dict) and isinstance(entry.get('version', 1), int)
        for entry in versions.values()),
            'the versions of its modules are damaged; save it anew')
    return content


def _load(file: Any, map_location: Any = None, *_: Any, **__: Any) -> dict:
    """Stand in for ``torch.load`` while mmengine downloads something."""
    if isinstance(file, (str, os.PathLike)):
        return load_from_local(os.fspath(file), map_location)
    return _checked(read_stream(file, map_location)[0])


def _guarded(loader: Callable) -> Callable:
    """Let a loader of a network address end in our reader."""

    @functools.wraps(loader)
    def load(*args: Any, **kwargs: Any) -> Any:
        with mock.patch.object(torch, 'load', _load):
            return loader(*args, **kwargs)

    return load


def install() -> None:
    """Replace mmengine's loaders; a second call changes nothing."""
    # Not above: mmengine may be importing this module of its own just now.
    from mmengine.runner.checkpoint import CheckpointLoader
    schemes = dict(CheckpointLoader._schemes)
    if schemes.get('') is load_from_local:
        return
    for prefix, loader in schemes.items():
        CheckpointLoader.register_scheme(prefix, _guarded(loader), force=True)
    CheckpointLoader.register_scheme('', load_from_local, force=True)
