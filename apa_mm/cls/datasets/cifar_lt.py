"""Long-tailed CIFAR from the original python batches."""
from typing import Any, List

import numpy as np
from mmpretrain.datasets import CIFAR10, CIFAR100

from apa_mm.registry import DATASETS
from apa_mm.utils.checks import check_choice

from .long_tail import PROFILES, draw_subset, long_tail_counts


@DATASETS.register_module()
class CIFAR10LT(CIFAR10):
    """Long-tailed CIFAR-10: MMPretrain's ``CIFAR10`` with fewer images.

    The training split keeps of every class what the profile gives, drawn as
    in the common long-tailed CIFAR; the test split stays balanced and whole.
    The meta information of both splits holds ``train_class_counts``, so
    that both need the same ``imbalance_factor`` and ``profile``.

    Args:
        data_root, split, **kwargs: As in ``CIFAR10``.
        imbalance_factor (float): Largest class over smallest, at least 1.
        profile (str): 'exp' or 'step'.
        seed (int): Seed of the subset; 0 is the common one.
        check_md5 (bool): Whether the files must have the published checksums.
            Without them, unpickling may run what a file asks for: set False
            for files of your own only.

    Raises:
        ValueError: For a wrong argument, or if a class has too few images.
    """

    def __init__(self, data_root: str = '', split: str = 'train',
                 imbalance_factor: float = 100, profile: str = 'exp',
                 seed: int = 0, check_md5: bool = True, **kwargs: Any) -> None:
        check_choice('split', split, ('train', 'test'))
        check_choice('profile', profile, PROFILES)
        self.imbalance_factor, self.profile = imbalance_factor, profile
        self.seed = seed
        if not check_md5:
            self.train_list = [[name, None] for name, _ in self.train_list]
            self.test_list = [[name, None] for name, _ in self.test_list]
        super().__init__(data_root=data_root, split=split, **kwargs)

    def load_data_list(self) -> List[dict]:
        """Read the batches and keep the long-tailed subset."""
        num_classes = len(self.METAINFO['classes'])
        split, self.split = self.split, 'train'
        samples = super().load_data_list()
        self.split = split
        counts = long_tail_counts(len(samples) // num_classes, num_classes,
                                  self.imbalance_factor, self.profile)
        self._metainfo['train_class_counts'] = tuple(counts)
        if split == 'test':
            return super().load_data_list()
        labels = np.array([sample['gt_label'] for sample in samples])
        kept = draw_subset(labels, counts, np.random.RandomState(self.seed))
        return [samples[i] for i in kept]


@DATASETS.register_module()
class CIFAR100LT(CIFAR10LT, CIFAR100):
    """Long-tailed CIFAR-100; arguments as :class:`CIFAR10LT`.

    With an exponential profile it has 10,847 training images at an imbalance
    factor of 100 and 19,573 at 10.
    """
