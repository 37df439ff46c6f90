"""One availability flag per optional library, found without importing it."""
from importlib.util import find_spec
from pathlib import Path


def _has(name: str) -> bool:
    """Look for a top-level module; a dotted name would import its parent."""
    return find_spec(name) is not None


def _has_mmcv_ops() -> bool:
    spec = find_spec('mmcv')
    folders = spec.submodule_search_locations if spec else None
    return any(file.suffix in ('.so', '.pyd') for folder in folders or ()
               for file in Path(folder).glob('_ext*'))


#: mmcv with its compiled operators; mmcv-lite has no ``_ext``.
HAS_MMCV_OPS: bool = _has_mmcv_ops()
#: 42 modules of mmdet import ``mmcv.ops``, so mmdet without them is unusable.
HAS_MMDET: bool = HAS_MMCV_OPS and _has('mmdet')
HAS_MMPRETRAIN: bool = _has('mmcv') and _has('mmpretrain')
HAS_HOTCOCO: bool = _has('hotcoco')
#: Comes with torch's CUDA builds for Linux.
HAS_TRITON: bool = _has('triton')
