"""Write checkpoints whole or not at all."""
import contextlib
import hashlib
import json
import os
import tempfile
from typing import Any, Dict, Iterator

import torch
from torch import Tensor

from apa_mm.weights import CheckpointError

__all__ = ['make_folder_for', 'write_checkpoint', 'write_text']

#: Digits of the digest in a file's name, as in OpenMMLab's publish_model.
SUFFIX_DIGITS = 8


def write_checkpoint(path: str,
                     tensors: Dict[str, Tensor],
                     meta: Dict[str, Any],
                     hash_suffix: bool = False) -> str:
    """Write ``dict(meta=..., state_dict=...)``, or safetensors by the suffix.

    The file is written under a temporary name beside its place and moved
    there when it is complete, so no half of one is ever seen. Equal content
    gives equal bytes.

    Args:
        path (str): Where to; ``.safetensors`` decides the format.
        tensors (dict[str, Tensor]): The weights.
        meta (dict): Plain values.
        hash_suffix (bool): Add ``-`` and the first 8 hex digits of the
            file's SHA-256 to its name.

    Returns:
        str: The path that was written.

    Raises:
        CheckpointError: If the file or its folder cannot be written.
    """
    path = os.fspath(path)
    folder = make_folder_for(path)
    own = {  # Views into larger storages would be written whole.
        name: value.detach().contiguous().clone()
        for name, value in tensors.items()
    }
    try:
        with _temporary(folder) as temporary:
            if path.endswith('.safetensors'):
                _save_safetensors(temporary, own, meta)
            else:
                with open(temporary, 'wb') as stream:
                    # A stream, since torch puts a path's name into the file.
                    torch.save(dict(meta=meta, state_dict=own), stream)
                    stream.flush()
                    os.fsync(stream.fileno())
            if hash_suffix:
                path = _with_digest(path, temporary)
            _move(temporary, path)
    except OSError as error:
        raise CheckpointError(
            f'{path} cannot be written: {error.strerror}') from None
    return path


def make_folder_for(path: str) -> str:
    """Make the folder that a file is to be written to, and return it.

    Args:
        path (str): The file.

    Returns:
        str: Its folder.

    Raises:
        CheckpointError: If it cannot be made.
    """
    folder = os.path.dirname(path) or '.'
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f'the folder {folder} of {os.path.basename(path)} cannot be made: '
            f'{error.strerror}; name another place to write to') from None
    return folder


def write_text(path: str, text: str) -> None:
    """Write a text file whole or not at all.

    Args:
        path (str): Where to.
        text (str): Its content.

    Raises:
        CheckpointError: If it cannot be written.
    """
    try:
        with _temporary(os.path.dirname(path) or '.') as temporary:
            with open(temporary, 'w', encoding='utf-8') as stream:
                stream.write(text)
            _move(temporary, path)
    except OSError as error:
        raise CheckpointError(
            f'{path} cannot be written: {error.strerror}') from None


def _move(temporary: str, path: str) -> None:
    # mkstemp's file is for its owner alone.
    os.chmod(temporary, 0o666 & ~_umask())
    os.replace(temporary, path)


@contextlib.contextmanager
def _temporary(folder: str) -> Iterator[str]:
    """Yield a name to write to; remove the file if it is still there."""
    handle, name = tempfile.mkstemp(prefix='.converting-', dir=folder)
    os.close(handle)
    try:
        yield name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(name)


def _save_safetensors(path: str, tensors: Dict[str, Tensor],
                      meta: Dict[str, Any]) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise CheckpointError(
            'writing safetensors needs the package safetensors; install it '
            'with "pip install safetensors", or write a .pth file') from None
    save_file(tensors, path, metadata={'meta': json.dumps(meta)})


def _with_digest(path: str, written: str) -> str:
    digest = hashlib.sha256()
    with open(written, 'rb') as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    stem, suffix = os.path.splitext(path)
    return f'{stem}-{digest.hexdigest()[:SUFFIX_DIGITS]}{suffix}'


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
