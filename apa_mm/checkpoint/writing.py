"""Write checkpoints whole or not at all."""
import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Dict

import torch
from torch import Tensor

from apa_mm.utils.files import replacing, sweep
from apa_mm.weights import CheckpointError
from apa_mm.weights.errors import require

#: Digits of the digest in a file's name, as in OpenMMLab's publish_model.
SUFFIX_DIGITS = 8


def write_checkpoint(path: str, tensors: Dict[str, Tensor],
                     meta: Dict[str, Any], hash_suffix: bool = False,
                     entry: str = 'state_dict') -> str:
    """Write ``dict(meta=..., state_dict=...)``, or safetensors by the suffix.

    No half of a file is ever seen, and equal content gives equal bytes.
    ``meta`` are plain values, ``entry`` is the key of the weights. With
    ``hash_suffix`` ``-`` and the first 8 hex digits of the file's SHA-256 are
    added to the name. Returns the path.

    Raises:
        CheckpointError: If the file or its folder cannot be written.
    """
    path = os.fspath(path)
    check_place(path)
    # Views into larger storages would be written whole.
    own = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    if path.endswith('.safetensors'):
        try:
            from safetensors.torch import save
        except ImportError:
            raise CheckpointError(
                'writing safetensors needs the package safetensors: "pip '
                'install safetensors", or write a .pth file') from None
        data = save(own, metadata={'meta': json.dumps(meta)})
    else:
        stream = io.BytesIO()
        torch.save({'meta': meta, entry: own}, stream)
        data = stream.getvalue()
    if hash_suffix:
        stem, suffix = os.path.splitext(path)
        digest = hashlib.sha256(data).hexdigest()[:SUFFIX_DIGITS]
        path = f'{stem}-{digest}{suffix}'
    write_bytes(path, data)
    return path


def check_place(path: str) -> None:
    """Make the folder of a file and check that it can be written to."""
    folder, name = os.path.split(path)
    what = f'the folder {folder} of {name} cannot be made'
    try:
        os.makedirs(folder or '.', exist_ok=True)
        what = f'{path} cannot be written'
        require(not os.path.isdir(path), f'{what}: it is a folder')
        # os.access alone says yes to root, and nothing on long names.
        with tempfile.NamedTemporaryFile(
                prefix='.', suffix=name, dir=folder or '.'):
            pass
    except OSError as error:
        raise CheckpointError(f'{what}: {error.strerror}; name another place '
                              'to write to') from None


def write_bytes(path: str, data: bytes) -> None:
    """Write a file whole or not at all; sweep what a killed run left."""
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise CheckpointError(
            f'{path} cannot be written: {error.strerror}') from None
    sweep(Path(path).parent)
