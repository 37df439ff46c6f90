"""Read checkpoint files from anywhere without running what is in them.

The form of a file is told by its first bytes, never by its name.
"""
import hashlib
import json
import os
from typing import IO, Any, Dict, List, NamedTuple

from torch import Tensor

from .archives import Place, load_archive, load_legacy
from .errors import CheckpointError, require
from .pickles import check_nesting

#: The largest network that these tools know takes 0.9 GB with its optimizer.
MAX_FILE_BYTES = 16 * 2**30
#: A safetensors header takes some 100 bytes a tensor.
MAX_HEADER_BYTES, MAX_TENSORS = 32 * 2**20, 100_000
#: First bytes of what links and clones give instead of a checkpoint.
_OTHERS = (
    (b'version https://git-lfs', 'a Git-LFS pointer instead of the file it '
     'stands for; run "git lfs pull", or download the file itself'),
    (b'<?xml', 'an XML answer of a server instead of a checkpoint; download '
     'it again'),
    (b'<', 'a web page instead of a checkpoint; the link leads to a page, so '
     'look there for the download'),
    (b'\x1f\x8b', 'a gzip archive; unpack it first'),
)


class RawCheckpoint(NamedTuple):
    """What a file holds."""

    path: str
    content: Dict[str, Any]  # entries; of a safetensors file the tensors
    metadata: Dict[str, str]  # header of a safetensors file
    num_bytes: int

    @property
    def sha256(self) -> str:
        """str: Digest of the file."""
        digest = hashlib.sha256()
        with open(self.path, 'rb') as stream:
            while chunk := stream.read(2**24):
                digest.update(chunk)
        return digest.hexdigest()


def read_checkpoint(path: str, map_location: Any = 'cpu') -> RawCheckpoint:
    """Read a checkpoint of torch (zip or legacy form) or safetensors.

    ``map_location`` is that of ``torch.load``, but None means the CPU, and
    'meta' checks the file without reading its tensors.

    Raises:
        CheckpointError: If it is no checkpoint, is damaged, claims more than
            it holds, or needs code of its own to load.
    """
    path = os.path.expanduser(path)
    require(os.path.isfile(path), f'checkpoint {path} does not exist or is no '
            'file; name a .pth file on this machine, or train first')
    try:
        with open(path, 'rb') as stream:
            content, metadata = read_stream(stream, map_location)
            return RawCheckpoint(path, content, metadata, _length_of(stream))
    except CheckpointError as error:
        problem = f'used: {error}'
    except MemoryError:
        problem = 'read: there is not enough memory for it'
    except OSError as error:
        problem = f'read: {error.strerror}'
    raise CheckpointError(f'{path} cannot be {problem}')


def read_stream(stream: IO[bytes], map_location: Any = 'cpu') -> tuple:
    """Read what :func:`read_checkpoint` reads, from an open file."""
    num_bytes = _length_of(stream)
    require(num_bytes <= MAX_FILE_BYTES,
            f'it has {num_bytes / 2**30:.0f} GiB, more than the '
            f'{MAX_FILE_BYTES / 2**30:.0f} GiB that a checkpoint may have')
    start = stream.read(64)
    stream.seek(0)
    metadata: Dict[str, str] = {}
    place = _placing(map_location)
    if start[:4] == b'PK\x03\x04':
        content = load_archive(stream, num_bytes, place)
    elif start[:2] == b'\x80\x02':
        content = load_legacy(stream, num_bytes, place)
    elif len(start) > 8 and start[8:9] == b'{':
        content, metadata = _load_safetensors(stream, num_bytes, place)
    else:
        text = start.removeprefix(b'\xef\xbb\xbf').lstrip()
        for mark, words in _OTHERS:
            require(not text.startswith(mark), f'it is {words}')
        raise CheckpointError(
            f'it starts with {start[:8]!r}, which no checkpoint does; '
            'expected a file of torch.save or safetensors')
    known = isinstance(content, dict)
    what = 'nothing' if known else f'a {type(content).__name__}'
    require(known and len(content) > 0, f'it holds {what} instead of a dict '
            'of weights; name a file that holds a state dict')
    check_nesting(content)
    return content, metadata


def _length_of(stream: IO[bytes]) -> int:
    place = stream.tell()
    length = stream.seek(0, os.SEEK_END)
    stream.seek(place)
    return length


def _placing(map_location: Any) -> Place:
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


def _load_safetensors(stream: IO[bytes], num_bytes: int,
                      place: Place) -> tuple:
    """Return the tensors and the metadata of a safetensors file."""
    size = int.from_bytes(stream.read(8), 'little')
    require(size <= min(num_bytes - 8, MAX_HEADER_BYTES),
            f'its header claims {size:.3g} bytes, but the file has '
            f'{num_bytes} and a header at most {MAX_HEADER_BYTES}; it is '
            'truncated, damaged or made to fill the memory')
    header = stream.read(size)
    metadata = _check_header(header)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError:
        raise CheckpointError('reading it needs the package safetensors: "pip '
                              'install safetensors"') from None
    stream.seek(0)
    try:
        tensors = load(stream.read())
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f'it is truncated or damaged: {error}') from None
    target = (lambda data, _: data.to('meta')) if place is None else place
    return {k: target(v, 'cpu') for k, v in tensors.items()}, metadata


def _check_header(header: bytes) -> Dict[str, str]:
    """Refuse a header on which readers would differ; return its metadata."""

    def check(pairs: List[tuple]) -> dict:
        names = [name for name, _ in pairs]
        require(len(set(names)) == len(names), 'its header names a tensor '
                'twice; it is damaged, save it anew')
        require(len(names) <= MAX_TENSORS, f'its header names {len(names)} '
                f'tensors, more than the {MAX_TENSORS} taken here')
        return dict(pairs)

    try:
        fields = json.loads(header, object_pairs_hook=check)
        return dict(fields.get('__metadata__') or {})
    except CheckpointError:
        raise
    except (ValueError, RecursionError, TypeError):
        raise CheckpointError('it is damaged: its safetensors header is no '
                              'JSON') from None
