"""Read checkpoint files from anywhere without running what is in them.

A file is looked at before it is loaded: its form, the sizes it claims, the
names in its pickle (:mod:`~apa_mm.weights.pickle_scan`). Then torch loads
it with ``weights_only=True``, which knows the classes that mmengine's
checkpoints need (:mod:`apa_mm.weights.serialization`) and, while it reads here,
``argparse.Namespace``, in which the authors' files keep their command line.
"""
import argparse
import contextlib
import hashlib
import io
import json
import os
import pickle
import re
import struct
import zipfile
import zlib
from typing import IO, Any, Dict, Iterator, List, NamedTuple

import torch
from torch import Tensor

from apa_mm.weights.serialization import allow_mmengine_checkpoints

from apa_mm.weights.errors import CheckpointError
from apa_mm.weights.pickle_scan import PickleScan, scan_legacy, scan_pickle

__all__ = ['MAX_FILE_BYTES', 'RawCheckpoint', 'read_checkpoint']

#: Far above any network that these tools know (the largest takes 0.9 GB with
#: its optimizer); a larger file is a mistake or an attack on memory.
MAX_FILE_BYTES = 16 * 2**30
#: Pickled scalars of long trainings reach some tens of MiB.
MAX_PICKLE_BYTES = 512 * 2**20
#: Tied weights let tensors claim more than the file holds, within reason.
MAX_SHARING = 16

#: What a damaged archive makes zipfile raise.
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, EOFError, OSError,
               RuntimeError, ValueError, struct.error, zlib.error)


class RawCheckpoint(NamedTuple):
    """What a file holds.

    Attributes:
        path (str): Where it was read from.
        content (dict): Top-level entries; of a safetensors file the tensors.
        metadata (dict[str, str]): Header of a safetensors file.
        sha256 (str): Digest of the file.
        num_bytes (int): Size of the file.
    """

    path: str
    content: Dict[str, Any]
    metadata: Dict[str, str]
    sha256: str
    num_bytes: int


def read_checkpoint(path: str) -> RawCheckpoint:
    """Read a checkpoint of torch (zip or legacy form) or safetensors.

    Args:
        path (str): The file. Nothing is fetched from a network.

    Returns:
        RawCheckpoint: Content on the CPU, with digest and size.

    Raises:
        CheckpointError: If it is no checkpoint, is damaged, claims more than
            it holds, or needs code of its own to load.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise CheckpointError(f'{path} is not there or no file; name a '
                              'checkpoint on this machine')
    try:
        with open(path, 'rb') as stream:
            return _read(path, stream)
    except CheckpointError as error:
        raise CheckpointError(f'{path} cannot be used: {error}') from None
    except OSError as error:
        raise CheckpointError(
            f'{path} cannot be read: {error.strerror}') from None


def _read(path: str, stream: IO[bytes]) -> RawCheckpoint:
    num_bytes = os.fstat(stream.fileno()).st_size
    if num_bytes > MAX_FILE_BYTES:
        raise CheckpointError(
            f'it has {num_bytes / 2**30:.0f} GiB, more than the '
            f'{MAX_FILE_BYTES / 2**30:.0f} GiB that a checkpoint may have; '
            'name another file')
    start = stream.read(9)
    stream.seek(0)
    metadata: Dict[str, str] = {}
    if start[:4] == b'PK\x03\x04':
        _check_zip(stream, num_bytes)
        content = _load_torch(stream)
    elif start[:2] == b'\x80\x02':
        _check_claims(scan_legacy(stream), num_bytes)
        content = _load_torch(stream)
    elif _is_safetensors(start, num_bytes):
        content, metadata = _load_safetensors(path, stream, num_bytes)
    else:
        raise CheckpointError(
            f'it starts with {start[:8]!r}, which no checkpoint does; '
            'expected a file of torch.save or safetensors')
    if not isinstance(content, dict) or not content:
        what = 'nothing' if content == {} else f'a {type(content).__name__}'
        raise CheckpointError(f'it holds {what} instead of a dict of weights; '
                              'name a file that holds a state dict')
    stream.seek(0)
    digest = hashlib.file_digest(stream, 'sha256') if hasattr(
        hashlib, 'file_digest') else hashlib.sha256(stream.read())
    return RawCheckpoint(path, content, metadata, digest.hexdigest(),
                         num_bytes)


def _check_zip(stream: IO[bytes], num_bytes: int) -> None:
    """Refuse archives that torch.save does not write."""
    try:
        archive = zipfile.ZipFile(stream)
    except _ZIP_ERRORS:
        raise CheckpointError('it is truncated or damaged: its zip archive '
                              'has no end; download it again') from None
    entries = archive.infolist()
    main = _check_entries(entries, num_bytes)
    try:
        pickled = archive.read(main)  # checks its CRC
    except _ZIP_ERRORS:
        raise CheckpointError('it is damaged: its pickle cannot be read; '
                              'download it again') from None
    scan = PickleScan()
    scan_pickle(io.BytesIO(pickled), scan)
    _check_claims(scan, num_bytes)
    sizes = {entry.filename: entry.file_size for entry in entries}
    root = main.filename.split('/')[0]
    for key, claimed in scan.storages.items():
        held = sizes.get(f'{root}/data/{key}', 0)
        if claimed > held:
            raise CheckpointError(
                f'its storage {key} claims {claimed} bytes, but holds {held}; '
                'it is damaged or made to crash the reader')


def _check_entries(entries: List[zipfile.ZipInfo],
                   num_bytes: int) -> zipfile.ZipInfo:
    """Return the entry of the pickle in an archive of the right form."""
    packed = [
        entry.filename for entry in entries
        if entry.compress_type or entry.flag_bits & 1
    ]
    if packed:
        raise CheckpointError(
            f'its entry {packed[0]} is compressed, which torch.save never '
            'does and which can hide any amount of data; do not use it')
    claimed = sum(entry.file_size for entry in entries)
    if claimed > num_bytes:
        raise CheckpointError(
            f'its entries claim {claimed:.3g} bytes in a file of {num_bytes}; '
            'it is damaged or made to fill the memory')
    names = [entry.filename for entry in entries]
    roots = {name.split('/')[0] for name in names}
    mains = [e for e in entries if e.filename.endswith('/data.pkl')]
    if len(set(names)) < len(names) or len(roots) != 1 or len(mains) != 1:
        raise CheckpointError('its zip archive is not of the form that '
                              'torch.save writes; save the state dict anew')
    if any(name.split('/')[1:2] in (['code'], ['constants.pkl'])
           for name in names):
        raise CheckpointError(
            'it is a TorchScript program, not a checkpoint; save '
            "the module's state_dict() with torch.save instead")
    if mains[0].file_size > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f'its pickle has {mains[0].file_size / 2**20:.0f} MiB, more '
            f'than the {MAX_PICKLE_BYTES / 2**20:.0f} that one may have')
    return mains[0]


def _check_claims(scan: PickleScan, num_bytes: int) -> None:
    largest = max(scan.tensors + scan.allocations, default=0)
    stored = sum(scan.storages.values())
    if (largest > num_bytes or stored > num_bytes
            or sum(scan.tensors) > MAX_SHARING * num_bytes):
        claimed = max(largest, stored, sum(scan.tensors))
        raise CheckpointError(
            f'its header claims {claimed:.3g} bytes of weights, but the file '
            f'has {num_bytes}; it is damaged or made to fill the memory')


@contextlib.contextmanager
def _namespace_allowed() -> Iterator[None]:
    """Let torch build ``argparse.Namespace``, which only holds values."""
    allow_mmengine_checkpoints()
    if hasattr(torch.serialization, 'safe_globals'):
        with torch.serialization.safe_globals([argparse.Namespace]):
            yield
    else:  # torch 2.4
        torch.serialization.add_safe_globals([argparse.Namespace])
        yield


def _load_torch(stream: IO[bytes]) -> Any:
    """Load a file that passed the checks, or say what it needed."""
    stream.seek(0)
    try:
        with _namespace_allowed():
            return torch.load(stream, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_explain(str(error))) from None
    except Exception as error:
        # A damaged file can fail anywhere in torch's reader.
        raise CheckpointError(
            'it is truncated or damaged (torch.load ended with '
            f'{type(error).__name__}); download it again') from None


def _explain(message: str) -> str:
    """Say what the pickle wanted, without torch's advice to allow all."""
    name = re.search(r'GLOBAL (\S+)', message)
    wanted = f'its pickle wants {name[1]}' if name else (
        'its pickle does more than hold weights')
    return (f'{wanted}, and loading would have to run that; where the file '
            'was made, save dict(state_dict=model.state_dict()) and convert '
            'that file')


def _is_safetensors(start: bytes, num_bytes: int) -> bool:
    if len(start) < 9:
        return False
    header = int.from_bytes(start[:8], 'little')
    return start[8:9] == b'{' and 2 <= header


def _load_safetensors(path: str, stream: IO[bytes], num_bytes: int) -> tuple:
    """Return the tensors and the metadata of a safetensors file."""
    header = int.from_bytes(stream.read(8), 'little')
    if header > num_bytes - 8:
        raise CheckpointError(
            f'its header claims {header:.3g} bytes, but the file has '
            f'{num_bytes}; it is truncated, damaged or made to fill the '
            'memory')
    _refuse_twins(stream.read(header))
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise CheckpointError(
            'reading safetensors needs the package safetensors; install it '
            'with "pip install safetensors"') from None
    try:
        with safe_open(path, framework='pt', device='cpu') as file:
            tensors: Dict[str, Tensor] = {
                name: file.get_tensor(name)
                for name in file.keys()
            }
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f'it is truncated or damaged: {error}') from None


def _refuse_twins(header: bytes) -> None:
    """Refuse a header that names a tensor twice; readers would differ."""

    def check(pairs: List[tuple]) -> dict:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise CheckpointError('its header names a tensor twice; it is '
                                  'damaged, save it anew')
        return dict(pairs)

    try:
        json.loads(header, object_pairs_hook=check)
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError('it is damaged: its safetensors header is no '
                              'JSON') from None
