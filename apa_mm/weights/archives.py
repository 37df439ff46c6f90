"""The two forms of ``torch.save``: a zip archive, and pickles in a row."""
import io
import struct
import zipfile
import zlib
from typing import IO, Any, Callable, Dict, List, Optional

import numpy as np
import torch
from torch import Tensor

from .constructors import Storage
from .errors import CheckpointError, require
from .pickles import WeightsUnpickler

#: Moves bytes that were saved on some device; None leaves all on meta.
Place = Optional[Callable[[Tensor, str], Tensor]]
#: Pickled scalars of long trainings reach some tens of MiB.
MAX_PICKLE_BYTES = 512 * 2**20
#: First object in a file of torch before 1.6, which had no zip archive.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DAMAGED = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError,
            struct.error, zlib.error)
_OTHER_ORDER = ('it was saved on a machine with another byte order; save it '
                'anew on this one')


def load_archive(stream: IO[bytes], num_bytes: int, place: Place) -> Any:
    """Return what a zip archive of the form of torch.save holds."""
    try:
        archive = zipfile.ZipFile(stream)
    except _DAMAGED:
        raise CheckpointError('it is truncated or damaged: its zip archive '
                              'has no end; download it again') from None
    main = _main_entry(archive.infolist(), num_bytes)
    root = main.split('/')[0]

    def storage(key: str, dtype: torch.dtype, size: int,
                saved_on: str) -> Storage:
        name = f'{root}/data/{key}'
        entry = archive.NameToInfo.get(name)
        held = 0 if entry is None else entry.file_size
        require(size <= held,
                f'its storage {key} claims {size} bytes, but holds {held}; '
                'it is damaged or made to crash the reader')
        if place is None:
            return Storage(_empty(size, 'meta'), dtype)
        data = np.frombuffer(_read(archive, name), np.uint8).copy()
        return Storage(place(torch.from_numpy(data), saved_on), dtype)

    order = f'{root}/byteorder'
    require(order not in archive.NameToInfo
            or _read(archive, order) == b'little', _OTHER_ORDER)
    pickled = io.BytesIO(_read(archive, main))
    return WeightsUnpickler(pickled, num_bytes, storage).load()


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return an entry; zipfile compares the CRC, but not the length."""
    try:
        data = archive.read(name)
        if len(data) != archive.getinfo(name).file_size:
            raise EOFError
    except _DAMAGED:
        raise CheckpointError(f'it is damaged: the checksum of its entry '
                              f'{name} is wrong; download it again') from None
    return data


def _empty(size: int, device: str = 'cpu') -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device=device)


def _main_entry(entries: List[zipfile.ZipInfo], num_bytes: int) -> str:
    """Return the name of the pickle in an archive of the right form."""
    names = [entry.filename for entry in entries]
    require(all(name.split('/')[1:2] not in (['code'], ['constants.pkl'])
                for name in names), 'it is a TorchScript program, not a '
            "checkpoint; save the module's state_dict() instead")
    packed = [entry.filename for entry in entries if entry.compress_type]
    require(not packed,
            f'its entry {"".join(packed[:1])} is compressed, which torch.save '
            'never does and which can hide any amount of data; do not use it')
    claimed = sum(entry.file_size for entry in entries)
    require(claimed <= num_bytes,
            f'its entries claim {claimed:.3g} bytes in a file of {num_bytes}; '
            'it is damaged or made to fill the memory')
    roots = {name.split('/')[0] for name in names}
    mains = [e for e in entries if e.filename.endswith('/data.pkl')]
    require(len(set(names)) == len(names) and len(roots) == len(mains) == 1,
            'its zip archive is not of the form that torch.save writes; save '
            'the state dict anew')
    require(mains[0].file_size <= MAX_PICKLE_BYTES,
            f'its pickle has {mains[0].file_size / 2**20:.0f} MiB, more '
            f'than the {MAX_PICKLE_BYTES / 2**20:.0f} that one may have')
    return mains[0].filename


class _Bounded:
    """A stream that takes no memory for bytes which are not there."""

    def __init__(self, stream: IO[bytes], num_bytes: int) -> None:
        self.stream = stream
        self.num_bytes = num_bytes
        self.readline = stream.readline  # a name of a pickle

    def read(self, size: int) -> bytes:
        """Return so many bytes, or raise EOFError."""
        if size > self.num_bytes - self.stream.tell():
            raise EOFError
        return self.stream.read(size)


def load_legacy(source: IO[bytes], num_bytes: int, place: Place) -> Any:
    """Load a file of torch before 1.6: five pickles, then the data."""
    stream = _Bounded(source, num_bytes)
    storages: Dict[str, Storage] = {}

    def storage(key: str, dtype: torch.dtype, size: int, saved_on: str
                ) -> Storage:
        data = _empty(size, 'meta') if place is None else place(
            _empty(size), saved_on)
        return storages.setdefault(key, Storage(data, dtype))

    def load() -> Any:
        return WeightsUnpickler(stream, num_bytes, storage).load()

    magic = load()
    require(type(magic) is int and magic == LEGACY_MAGIC,
            'it is a bare pickle, not a file of torch.save; ask for a file '
            'made by torch.save(model.state_dict(), ...)')
    load()  # protocol
    system = load()
    require(isinstance(system, dict) and system.get('little_endian') is True,
            _OTHER_ORDER)
    content, keys = load(), load()
    require(isinstance(keys, list) and all(type(k) is str for k in keys)
            and set(keys) == set(storages),
            'it is truncated or damaged: it lists other storages than it '
            'uses; download it again')
    for key in keys if place is not None else []:
        data, size = storages[key].data, storages[key].data.numel()
        try:
            items = int.from_bytes(stream.read(8), 'little')
            if items * storages[key].dtype.itemsize != size:
                raise EOFError
            read = np.frombuffer(stream.read(size), np.uint8).copy()
            data.copy_(torch.from_numpy(read))
        except EOFError:
            raise CheckpointError(f'it is truncated or damaged at its storage '
                                  f'{key}; download it again') from None
    return content
