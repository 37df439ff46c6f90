"""Long-tailed profiles, subsets with such a profile, and class orders."""
from typing import List, Sequence

import numpy as np

from apa_mm.utils.checks import check_choice
from apa_mm.utils.tables import show

PROFILES = ('exp', 'step')
LABEL_ORDERS = ('native', 'frequency')


def long_tail_counts(max_count: int, num_classes: int, imbalance_factor: float,
                     profile: str = 'exp') -> List[int]:
    r"""Return how many images each class of a long-tailed subset keeps.

    With :math:`\rho` the ratio of the largest to the smallest class, class c
    of C keeps :math:`\lfloor n_{max} \rho^{-c/(C-1)} \rfloor` images under
    the exponential profile ('exp'); under 'step' the first half of the
    classes keeps all and the other half :math:`n_{max} / \rho`. There are at
    least 2 classes, the largest of ``max_count`` images, and the ratio,
    ``imbalance_factor``, is at least 1.

    Raises:
        ValueError: If an argument is out of range or a class stays empty.
    """
    check_choice('profile', profile, PROFILES)
    if num_classes < 2:
        raise ValueError(f'num_classes must be 2 or more, got {num_classes}')
    if not imbalance_factor >= 1:
        raise ValueError(
            f'imbalance_factor must be 1 or more, but got {imbalance_factor}; '
            'use the inverse, such as 100 for 0.01')
    ratio = 1 / imbalance_factor
    if profile == 'step':
        head = num_classes // 2
        exponents = [0.] * head + [1.] * (num_classes - head)
    else:
        exponents = [c / (num_classes - 1) for c in range(num_classes)]
    counts = [int(max_count * ratio**exponent) for exponent in exponents]
    if min(counts) < 1:
        raise ValueError(
            f'imbalance_factor={imbalance_factor} leaves class '
            f'{counts.index(min(counts))} without training images; use a '
            f'factor of at most {max_count}, the size of the largest class')
    return counts


def draw_subset(labels: np.ndarray, counts: Sequence[int],
                rng: np.random.RandomState) -> np.ndarray:
    """Draw ``counts[c]`` samples of every class c; return indices by class.

    The indices of each are shuffled and the first ones kept. With
    ``RandomState(0)``, whose stream numpy never changes, this is the subset
    that long-tailed CIFAR is commonly trained on.
    """
    kept = []
    for label, count in enumerate(counts):
        indices = np.flatnonzero(labels == label)
        if len(indices) < count:
            raise ValueError(
                f'class {label} has {len(indices)} images, but the profile '
                f'needs {count} of it; the data are incomplete')
        rng.shuffle(indices)
        kept.append(indices[:count])
    return np.concatenate(kept)


def frequency_ranks(counts: Sequence[int]) -> np.ndarray:
    """Return the rank of every class by falling number of train images.

    Classes of the same size keep their order. The authors' own sort does not
    promise that, so that their classes of one size may be swapped.
    """
    order = np.argsort(-np.asarray(counts, dtype=np.int64), kind='stable')
    return np.argsort(order)


def check_class_counts(name: str, counts: Sequence[int]) -> None:
    """Raise ValueError if a class has no training image."""
    if empty := [c for c, count in enumerate(counts) if count == 0]:
        raise ValueError(
            f'{len(empty)} of {len(counts)} classes have no training image '
            f'in {name}: {show(empty, 5)}; use the complete list, or set '
            'allow_empty_classes=True if no loss or offset needs the counts')
