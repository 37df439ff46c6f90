"""What needs MMPretrain; registers only where that can be imported."""
from apa_mm.utils import HAS_MMPRETRAIN

if HAS_MMPRETRAIN:
    from . import datasets, heads, samplers, transforms  # noqa: F401
