"""Long-tailed CIFAR from the original python batches."""
import hashlib
import os.path as osp
from typing import List, Optional, Tuple

import numpy as np
from mmpretrain.datasets import CIFAR10, CIFAR100

from apa_mm.registry import DATASETS
from apa_mm.utils.checks import check_choice

from .long_tail import PROFILES, draw_subset, long_tail_counts
from .safe_pickle import load_arrays

__all__ = ['CIFAR100LT', 'CIFAR10LT']

IMAGE_SIZE = 3 * 32 * 32


@DATASETS.register_module()
class CIFAR10LT(CIFAR10):
    """Long-tailed CIFAR-10.

    The training split keeps of every class what the profile gives, drawn as
    in the common long-tailed CIFAR; the test split stays balanced and whole.
    Nothing is downloaded. Images are RGB, (32, 32, 3), uint8, as MMPretrain's
    ``CIFAR10`` gives them.

    The meta information of both splits holds ``train_class_counts``, so
    that both need the same ``imbalance_factor`` and ``profile``.

    Args:
        data_root (str): Folder that holds the folder of the batches,
            ``cifar-10-batches-py`` or ``cifar-100-python``.
        split (str): 'train' or 'test'. Defaults to 'train'.
        imbalance_factor (float): Largest class over smallest, at least 1.
            Defaults to 100.
        profile (str): 'exp' or 'step'. Defaults to 'exp'.
        seed (int): Seed of the subset. Defaults to 0, the common one.
        check_md5 (bool): Whether to compare the files with the published
            checksums. Defaults to True.
        metainfo (dict, optional): As in MMPretrain's ``BaseDataset``.
        **kwargs: As in MMPretrain's ``BaseDataset``.

    Raises:
        ValueError: For a wrong argument, and if the files are missing,
            damaged or have too few images.
    """

    def __init__(self,
                 data_root: str,
                 split: str = 'train',
                 imbalance_factor: float = 100,
                 profile: str = 'exp',
                 seed: int = 0,
                 check_md5: bool = True,
                 metainfo: Optional[dict] = None,
                 **kwargs) -> None:
        check_choice('split', split, ('train', 'test'))
        check_choice('profile', profile, PROFILES)
        self.imbalance_factor = imbalance_factor
        self.profile = profile
        self.seed = seed
        self.check_md5 = check_md5
        super().__init__(
            data_root=data_root,
            split=split,
            metainfo=metainfo,
            download=False,
            **kwargs)

    def load_data_list(self) -> List[dict]:
        """Read the batches and keep the long-tailed subset.

        Returns:
            list[dict]: 'img' and 'gt_label' of every image.

        Raises:
            ValueError: See the class.
        """
        num_classes = len(self.METAINFO['classes'])
        folder = osp.join(self.data_prefix['root'], self.base_folder)
        if not osp.isdir(folder):
            raise ValueError(
                f'{type(self).__name__} found no folder {folder}; unpack '
                f'{self.filename} from {self.url} in data_root')
        train = _read_batches(folder, self.train_list, num_classes,
                              self.check_md5)
        counts = long_tail_counts(
            len(train[1]) // num_classes, num_classes, self.imbalance_factor,
            self.profile)
        self._metainfo['train_class_counts'] = tuple(counts)
        if self.split == 'train':
            images, labels = train
            kept = draw_subset(labels, counts,
                               np.random.RandomState(self.seed))
            images, labels = images[kept], labels[kept]
        else:
            images, labels = _read_batches(folder, self.test_list,
                                           num_classes, self.check_md5)
        return [
            dict(img=image, gt_label=label)
            for image, label in zip(images, labels.tolist(), strict=True)
        ]


@DATASETS.register_module()
class CIFAR100LT(CIFAR10LT):
    """Long-tailed CIFAR-100; arguments as :class:`CIFAR10LT`.

    With an exponential profile it has 10,847 training images at an imbalance
    factor of 100 and 19,573 at 10.
    """

    base_folder = CIFAR100.base_folder
    url = CIFAR100.url
    filename = CIFAR100.filename
    tgz_md5 = CIFAR100.tgz_md5
    train_list = CIFAR100.train_list
    test_list = CIFAR100.test_list
    meta = CIFAR100.meta
    METAINFO = CIFAR100.METAINFO


def _read_batches(folder: str, files: List[List[str]], num_classes: int,
                  check_md5: bool) -> Tuple[np.ndarray, np.ndarray]:
    """Return images, (N, 32, 32, 3), and labels, (N,), of some batches."""
    batches = [
        _read_batch(
            osp.join(folder, name), md5 if check_md5 else None, num_classes)
        for name, md5 in files
    ]
    images = np.concatenate([batch[0] for batch in batches])
    images = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, np.concatenate([batch[1] for batch in batches])


def _read_batch(path: str, md5: Optional[str],
                num_classes: int) -> Tuple[np.ndarray, np.ndarray]:
    """Return pixels, (N, 3072), and labels, (N,), of one batch."""
    if not osp.isfile(path):
        raise ValueError(f'{path} is missing; unpack the complete archive of '
                         'the python version again')
    with open(path, 'rb') as file:
        data = file.read()
    got = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if md5 is not None and got != md5:
        raise ValueError(
            f'{path} has the md5 checksum {got}, but {md5} was expected; the '
            'file is damaged or another one: download the archive again, or '
            'set check_md5=False for data of your own in this format')
    entry = load_arrays(data, path)
    entry = entry if isinstance(entry, dict) else {}
    pixels = np.asarray(entry.get('data', ()))
    labels = np.asarray(entry.get('labels', entry.get('fine_labels', ())))
    if (pixels.dtype != np.uint8 or labels.dtype.kind not in 'iu'
            or pixels.shape != (len(labels), IMAGE_SIZE)):
        raise ValueError(
            f'{path} must hold "data", uint8 with {IMAGE_SIZE} values for '
            'each image, and as many "labels" or "fine_labels", but has '
            f'{sorted(map(str, entry))} with shapes {pixels.shape} and '
            f'{labels.shape}')
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f'{path} has labels from {labels.min()} to {labels.max()}, but '
            f'they must be in [0, {num_classes})')
    return pixels, labels.astype(np.int64)
