"""Digits-LT: a long-tailed set of real images that needs no download."""
from typing import Any, List

import cv2
import numpy as np
from mmpretrain.datasets import BaseDataset

from apa_mm.registry import DATASETS
from apa_mm.utils.checks import check_choice

from .long_tail import PROFILES, draw_subset, long_tail_counts

NUM_CLASSES = 10
#: Largest value of a pixel in scikit-learn's digits.
WHITE = 16


@DATASETS.register_module()
class DigitsLT(BaseDataset):
    """Handwritten digits of scikit-learn with a long-tailed training split.

    Of its 1,797 images (8 x 8 pixels, grey, here repeated in three channels)
    the test split holds the same number of every digit, and the training
    split of the others what the profile gives, the most of digit 0. The meta
    information of both splits holds ``train_class_counts``, so that both need
    the same ``imbalance_factor`` and ``profile``.

    Args:
        split, imbalance_factor, profile, seed: As in
            :class:`apa_mm.CIFAR10LT`.
        test_per_class (int): Test images of every digit.
        image_size (int): In pixels; by bilinear interpolation unless 8.
        metainfo, **kwargs: As in MMPretrain's ``BaseDataset``.

    Raises:
        RuntimeError: If scikit-learn is not installed.
        ValueError: For an argument out of range.

    Example:
        >>> DigitsLT(imbalance_factor=10).metainfo['train_class_counts']
        (134, 103, 80, 62, 48, 37, 28, 22, 17, 13)
    """

    METAINFO = dict(classes=tuple(map(str, range(NUM_CLASSES))))

    def __init__(self, split: str = 'train', imbalance_factor: float = 50,
                 profile: str = 'exp', test_per_class: int = 40,
                 image_size: int = 8, seed: int = 0, **kwargs: Any) -> None:
        check_choice('split', split, ('train', 'test'))
        check_choice('profile', profile, PROFILES)
        if image_size < 1:
            raise ValueError(
                f'image_size must be 1 pixel or more, but got {image_size}')
        self.split = split
        self.imbalance_factor, self.profile = imbalance_factor, profile
        self.test_per_class = test_per_class
        self.image_size = image_size
        self.seed = seed
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> List[dict]:
        """Draw the split."""
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise RuntimeError('DigitsLT needs scikit-learn; run: pip install '
                               'scikit-learn') from None
        digits = load_digits()
        labels = digits.target.astype(np.int64)
        smallest = int(np.bincount(labels).min())
        if not 1 <= self.test_per_class < smallest:
            raise ValueError(f'test_per_class must be in [1, {smallest}), but '
                             f'got {self.test_per_class}')
        counts = long_tail_counts(smallest - self.test_per_class, NUM_CLASSES,
                                  self.imbalance_factor, self.profile)
        self._metainfo['train_class_counts'] = tuple(counts)
        rng = np.random.RandomState(self.seed)
        kept = draw_subset(labels, [self.test_per_class] * NUM_CLASSES, rng)
        if self.split == 'train':
            # The test images are struck out with a label that no class has.
            rest = labels.copy()
            rest[kept] = -1
            kept = draw_subset(rest, counts, rng)
        return [dict(img=self._image(digits.images[i]),
                     gt_label=int(labels[i])) for i in kept]

    def _image(self, pixels: np.ndarray) -> np.ndarray:
        """Return an image of 0 to 255 in three equal channels."""
        image = np.round(pixels * (255 / WHITE)).astype(np.uint8)
        if self.image_size != len(image):
            image = cv2.resize(image, (self.image_size, self.image_size))
        return np.repeat(image[:, :, None], 3, axis=2)

    def extra_repr(self) -> List[str]:
        """Describe the split instead of files, which there are none of."""
        return [f'Split: \t{self.split}, imbalance factor '
                f'{self.imbalance_factor}, profile {self.profile}']
