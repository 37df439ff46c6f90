"""What needs MMPretrain; registers only where that can be imported."""
from apa_mm.utils import HAS_MMPRETRAIN

if HAS_MMPRETRAIN:
    from . import transforms  # noqa: F401
    from .datasets import (CIFAR10LT, CIFAR100LT, DigitsLT,  # noqa: F401
                           ImageListDataset, ImageNetLT, INaturalist2018,
                           PlacesLT)
    from .heads import (CosineClsHead, LongTailLinearClsHead,  # noqa: F401
                        NormalizedLinearClsHead)
    from .samplers import (ClassBalancedSampler,  # noqa: F401
                           RepeatAugSampler)
