"""Read checkpoint files from anywhere without running what is in them.

All ways into the package end here: conversion and inspection call
:func:`read_checkpoint`, and mmengine's own loading does
(:mod:`~apa_mm.weights.mmengine_loader`). The form of a file is told by its
first bytes, never by its name.
"""
import hashlib
import io
import json
import os
import struct
import zipfile
import zlib
from typing import IO, Any, Callable, Dict, List, NamedTuple, Optional

import numpy as np
import torch
from torch import Tensor

from .constructors import Storage
from .errors import CheckpointError
from .pickles import WeightsUnpickler, check_nesting

__all__ = ['MAX_FILE_BYTES', 'RawCheckpoint', 'read_checkpoint', 'sha256_of']

#: Far above any network that these tools know (the largest takes 0.9 GB with
#: its optimizer); a larger file is a mistake or an attack on memory.
MAX_FILE_BYTES = 16 * 2**30
#: Pickled scalars of long trainings reach some tens of MiB.
MAX_PICKLE_BYTES = 512 * 2**20
#: A safetensors header takes some 100 bytes a tensor.
MAX_HEADER_BYTES, MAX_TENSORS = 32 * 2**20, 100_000
#: First object in a file of torch before 1.6, which had no zip archive.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
#: First bytes of what links and clones give instead of a checkpoint.
_OTHERS = (
    (b'version https://git-lfs', 'a Git-LFS pointer instead of the file it '
     'stands for; run "git lfs pull", or download the file itself'),
    (b'<!doctype html', 'a web page instead of a checkpoint; the link leads '
     'to a page, so look there for the download'),
    (b'<html', 'a web page instead of a checkpoint; the link leads to a '
     'page, so look there for the download'),
    (b'<?xml', 'an XML answer of a server instead of a checkpoint; download '
     'it again'),
    (b'\x1f\x8b', 'a gzip archive; unpack it first'),
)
_CHUNK = 2**24
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, EOFError, OSError,
            RuntimeError, ValueError, struct.error, zlib.error)


class RawCheckpoint(NamedTuple):
    """What a file holds.

    Attributes:
        path (str): Where it was read from.
        content (dict): Top-level entries; of a safetensors file the tensors.
        metadata (dict[str, str]): Header of a safetensors file.
        num_bytes (int): Size of the file.
    """

    path: str
    content: Dict[str, Any]
    metadata: Dict[str, str]
    num_bytes: int

    @property
    def sha256(self) -> str:
        """str: Digest of the file."""
        return sha256_of(self.path)


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a file in hex digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_checkpoint(path: str, map_location: Any = 'cpu') -> RawCheckpoint:
    """Read a checkpoint of torch (zip or legacy form) or safetensors.

    Args:
        path (str): The file. Nothing is fetched from a network.
        map_location (str | torch.device | Callable | dict, optional): Where
            tensors go, as in ``torch.load``, but None means the CPU. 'meta'
            checks the file without reading its tensors.

    Returns:
        RawCheckpoint: Content and size.

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
            content, metadata = read_stream(stream, map_location)
            return RawCheckpoint(path, content, metadata, _length_of(stream))
    except CheckpointError as error:
        raise CheckpointError(f'{path} cannot be used: {error}') from None
    except MemoryError:
        raise CheckpointError(f'{path} cannot be read: there is not enough '
                              'memory for it') from None
    except OSError as error:
        raise CheckpointError(
            f'{path} cannot be read: {error.strerror}') from None


def read_stream(stream: IO[bytes], map_location: Any = 'cpu') -> tuple:
    """Read what :func:`read_checkpoint` reads, from an open file."""
    num_bytes = _length_of(stream)
    if num_bytes > MAX_FILE_BYTES:
        raise CheckpointError(
            f'it has {num_bytes / 2**30:.0f} GiB, more than the '
            f'{MAX_FILE_BYTES / 2**30:.0f} GiB that a checkpoint may have; '
            'name another file')
    start = stream.read(64)
    stream.seek(0)
    metadata: Dict[str, str] = {}
    for mark, words in _OTHERS:
        if start.lstrip().lower().startswith(mark):
            raise CheckpointError(f'it is {words}')
    if start[:4] == b'PK\x03\x04':
        content = _Archive(stream, num_bytes, _placing(map_location)).load()
    elif start[:2] == b'\x80\x02':
        content = _load_legacy(_Bounded(stream, num_bytes), num_bytes,
                               _placing(map_location))
    elif len(start) > 8 and start[8:9] == b'{':
        content, metadata = _load_safetensors(stream, num_bytes,
                                              _placing(map_location))
    else:
        raise CheckpointError(
            f'it starts with {start[:8]!r}, which no checkpoint does; '
            'expected a file of torch.save or safetensors')
    if not isinstance(content, dict) or not content:
        what = 'nothing' if content == {} else f'a {type(content).__name__}'
        raise CheckpointError(f'it holds {what} instead of a dict of weights; '
                              'name a file that holds a state dict')
    check_nesting(content)
    return content, metadata


def _length_of(stream: IO[bytes]) -> int:
    place = stream.tell()
    length = stream.seek(0, os.SEEK_END)
    stream.seek(place)
    return length


def _placing(map_location: Any) -> Optional[Callable[[Tensor, str], Tensor]]:
    """Return what moves bytes saved on some device; None for 'meta'."""
    if map_location == 'meta':
        return None

    def place(data: Tensor, saved_on: str) -> Tensor:
        target = map_location
        if isinstance(target, dict):
            target = target.get(saved_on, saved_on)
        elif callable(target):
            moved = target(data.untyped_storage(), saved_on)
            target = None if moved is None else moved.device
        return data if target is None else data.to(target)

    return place


class _Archive:
    """A zip archive of the form that torch.save writes, and no other."""

    def __init__(self, stream: IO[bytes], num_bytes: int,
                 place: Optional[Callable]) -> None:
        try:
            self.archive = zipfile.ZipFile(stream)
        except _DAMAGED:
            raise CheckpointError(
                'it is truncated or damaged: its zip archive has no end; '
                'download it again') from None
        self.num_bytes = num_bytes
        self.place = place
        self.main = _main_entry(self.archive.infolist(), num_bytes)
        self.root = self.main.split('/')[0]

    def load(self) -> Any:
        """Return the object in the archive."""
        order = f'{self.root}/byteorder'
        if order in self.archive.NameToInfo and self._read(order) != b'little':
            raise CheckpointError('it was saved on a machine with another '
                                  'byte order; save it anew on this one')
        pickled = io.BytesIO(self._read(self.main))
        return WeightsUnpickler(pickled, self.num_bytes, self._storage).load()

    def _storage(self, key: str, dtype: torch.dtype, size: int,
                 saved_on: str) -> Storage:
        name = f'{self.root}/data/{key}'
        entry = self.archive.NameToInfo.get(name)
        held = 0 if entry is None else entry.file_size
        if size > held:
            raise CheckpointError(
                f'its storage {key} claims {size} bytes, but holds {held}; '
                'it is damaged or made to crash the reader')
        if self.place is None:
            return Storage(_on_meta(size), dtype)
        data = torch.empty(held, dtype=torch.uint8)
        self._read_into(name, memoryview(data.numpy()))
        return Storage(self.place(data[:size], saved_on), dtype)

    def _read(self, name: str) -> bytes:
        data = bytearray(self.archive.NameToInfo[name].file_size)
        self._read_into(name, memoryview(data))
        return bytes(data)

    def _read_into(self, name: str, target: memoryview) -> None:
        try:
            with self.archive.open(name) as stream:
                done = 0
                while done < len(target):
                    chunk = stream.read(min(_CHUNK, len(target) - done))
                    if not chunk:
                        raise EOFError
                    target[done:done + len(chunk)] = chunk
                    done += len(chunk)
                stream.read(1)  # reaches the end, where the CRC is compared
        except _DAMAGED:
            raise CheckpointError(
                f'it is damaged: the checksum of its entry {name} is wrong; '
                'download it again') from None


def _on_meta(size: int) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device='meta')


def _main_entry(entries: List[zipfile.ZipInfo], num_bytes: int) -> str:
    """Return the name of the pickle in an archive of the right form."""
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
    return mains[0].filename


class _Bounded:
    """A stream that takes no memory for bytes which are not there."""

    def __init__(self, stream: IO[bytes], num_bytes: int) -> None:
        self.stream = stream
        self.num_bytes = num_bytes

    def read(self, size: int) -> bytes:
        """Return so many bytes, or raise EOFError."""
        if size > self.num_bytes - self.stream.tell():
            raise EOFError
        return self.stream.read(size)

    def readline(self) -> bytes:
        """Return a line, such as a name of a pickle, cut at 4 kB."""
        return self.stream.readline(4096)


def _load_legacy(stream: Any, num_bytes: int,
                 place: Optional[Callable]) -> Any:
    """Load a file of torch before 1.6: five pickles, then the data."""
    storages: Dict[str, Storage] = {}

    def storage(key: str, dtype: torch.dtype, size: int,
                saved_on: str) -> Storage:
        storages[key] = Storage(
            _on_meta(size) if place is None else torch.empty(
                size, dtype=torch.uint8), dtype)
        return storages[key]

    def load() -> Any:
        return WeightsUnpickler(stream, num_bytes, storage).load()

    if load() != LEGACY_MAGIC:
        raise CheckpointError(
            'it is a bare pickle, not a file of torch.save; ask for a file '
            'made by torch.save(model.state_dict(), ...)')
    load()  # protocol
    system = load()
    if not (isinstance(system, dict) and system.get('little_endian') is True):
        raise CheckpointError('it was saved on a machine with another byte '
                              'order; save it anew on this one')
    content, keys = load(), load()
    if not isinstance(keys, list) or set(keys) != set(storages):
        raise CheckpointError('it is truncated or damaged: it lists other '
                              'storages than it uses; download it again')
    for key in keys if place is not None else []:
        target = storages[key]
        data = target.data.numpy()
        try:
            items = int.from_bytes(stream.read(8), 'little')
            if items * target.dtype.itemsize != len(data):
                raise EOFError
            data[:] = np.frombuffer(stream.read(len(data)), np.uint8)
        except EOFError:
            raise CheckpointError(
                f'it is truncated or damaged at its storage {key}; download '
                'it again') from None
    return content


def _load_safetensors(stream: IO[bytes], num_bytes: int,
                      place: Optional[Callable]) -> tuple:
    """Return the tensors and the metadata of a safetensors file."""
    size = int.from_bytes(stream.read(8), 'little')
    if size > num_bytes - 8 or size > MAX_HEADER_BYTES:
        raise CheckpointError(
            f'its header claims {size:.3g} bytes, but the file has '
            f'{num_bytes} and a header at most {MAX_HEADER_BYTES}; it is '
            'truncated, damaged or made to fill the memory')
    header = stream.read(size)
    metadata = _check_header(header)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError:
        raise CheckpointError(
            'reading safetensors needs the package safetensors; install it '
            'with "pip install safetensors"') from None
    stream.seek(0)
    try:
        tensors = load(stream.read())
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f'it is truncated or damaged: {error}') from None
    target = (lambda data, _: data.to('meta')) if place is None else place
    return {k: target(v, 'cpu') for k, v in tensors.items()}, metadata


def _check_header(header: bytes) -> Dict[str, str]:
    """Refuse a header on which readers would differ; return its metadata."""

    def check(pairs: List[tuple]) -> dict:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise CheckpointError('its header names a tensor twice; it is '
                                  'damaged, save it anew')
        if len(names) > MAX_TENSORS:
            raise CheckpointError(f'its header names {len(names)} tensors, '
                                  f'more than the {MAX_TENSORS} taken here')
        return dict(pairs)

    try:
        fields = json.loads(header, object_pairs_hook=check)
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        fields = None
    metadata = fields.get('__metadata__') if isinstance(fields, dict) else None
    if fields is None or not isinstance(metadata or {}, dict):
        raise CheckpointError('it is damaged: its safetensors header is no '
                              'JSON')
    return dict(metadata or {})
