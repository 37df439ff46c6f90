"""One availability flag per optional library, found without importing it."""
from importlib.util import find_spec

__all__ = [
    'HAS_HOTCOCO', 'HAS_MMCV_OPS', 'HAS_MMDET', 'HAS_MMPRETRAIN', 'HAS_TRITON'
]


def _has(*names: str) -> bool:
    """Return whether every module can be found; a parent comes first.

    ``find_spec('a.b')`` raises if ``a`` is missing, hence the order.
    """
    return all(find_spec(name) is not None for name in names)


#: mmcv with its compiled operators; mmcv-lite has no ``_ext``.
HAS_MMCV_OPS: bool = _has('mmcv', 'mmcv._ext')
#: 42 modules of mmdet import ``mmcv.ops``, so mmdet without them is unusable.
HAS_MMDET: bool = HAS_MMCV_OPS and _has('mmdet')
HAS_MMPRETRAIN: bool = _has('mmcv', 'mmpretrain')
HAS_HOTCOCO: bool = _has('hotcoco')
#: Comes with torch's CUDA builds for Linux.
HAS_TRITON: bool = _has('triton')
