"""Long-tailed data sets that are given by list files."""
from typing import Any, List, Optional, Sequence

import numpy as np
from mmengine.fileio import get_file_backend, join_path
from mmengine.utils import is_abs
from mmpretrain.datasets import BaseDataset

from apa_mm.registry import DATASETS
from apa_mm.utils.checks import check_choice

from .list_file import ListFile, check_images, folder_names, read_list_file
from .long_tail import LABEL_ORDERS, check_class_counts, frequency_ranks


@DATASETS.register_module()
class ImageListDataset(BaseDataset):
    """Images and labels from a list file, ``path label`` in every line.

    The meta information, which mmengine saves in every checkpoint, holds the
    ``label_order`` and ``train_class_counts``, training images per class in
    that order; an evaluation set knows them by its ``train_ann_file``.

    With ``label_order='frequency'`` the label of a class is its rank by
    falling number of training images, as in the authors' long-tailed
    classifiers; see :func:`frequency_ranks` for classes of the same size.

    Args:
        ann_file (str): The list file, relative to ``data_root``.
        num_classes (int, optional): C; the children know theirs.
        train_ann_file (str, optional): The training list, relative to
            ``data_root``, if ``ann_file`` is another one.
        label_order (str): 'native' or 'frequency'.
        num_images (int, optional): Images that the list must have; None does
            not check.
        check_images (bool): Whether to make sure that all images exist (one
            look into each folder).
        allow_empty_classes (bool): Whether training may go without images of
            some classes.
        metainfo (dict, optional): ``classes`` are names in native order; by
            default the names of the images' folders.
        data_root, test_mode, **kwargs: As in MMPretrain's ``BaseDataset``.

    Raises:
        ValueError: For a wrong argument, list file or number of images or
            classes, and if images are missing.
    """

    #: C of the child classes.
    NUM_CLASSES: Optional[int] = None

    def __init__(self, ann_file: str, num_classes: Optional[int] = None,
                 train_ann_file: Optional[str] = None,
                 label_order: str = 'native', num_images: Optional[int] = None,
                 check_images: bool = True, allow_empty_classes: bool = False,
                 data_root: str = '', test_mode: bool = False,
                 **kwargs: Any) -> None:
        check_choice('label_order', label_order, LABEL_ORDERS)
        self.num_classes = num_classes or self.NUM_CLASSES
        if self.num_classes is None:
            raise ValueError(f'{type(self).__name__} needs num_classes')
        if label_order == 'frequency' and test_mode and not train_ann_file:
            raise ValueError(
                "label_order='frequency' ranks classes by training images: "
                'set train_ann_file on the evaluation set to their list')
        if train_ann_file and data_root and not is_abs(train_ann_file):
            train_ann_file = join_path(data_root, train_ann_file)
        self.train_ann_file = train_ann_file
        self.label_order = label_order
        self.num_images = num_images
        self.check_images = check_images
        self.allow_empty_classes = allow_empty_classes
        super().__init__(ann_file, data_root=data_root, test_mode=test_mode,
                         **kwargs)

    def load_data_list(self) -> List[dict]:
        """Read and check the list file."""
        samples = read_list_file(self.ann_file, self.num_classes)
        if self.num_images not in (None, len(samples.paths)):
            raise ValueError(
                f'{self.ann_file} lists {len(samples.paths)} images, but '
                f'{self.num_images} were expected; get it again, or set '
                'num_images=None for a list of your own')
        if self.check_images:
            check_images(samples, self.img_prefix)
        backend = get_file_backend(self.img_prefix, enable_singleton=True)
        labels = self._order_classes(samples).tolist()
        paths = (backend.join_path(self.img_prefix, p) for p in samples.paths)
        return [dict(img_path=path, gt_label=label)
                for path, label in zip(paths, labels, strict=True)]

    def _order_classes(self, samples: ListFile) -> np.ndarray:
        """Set the meta information; return the labels in the order asked."""
        counts = self._train_counts(samples)
        ranks = (frequency_ranks(counts) if self.label_order == 'frequency'
                 else np.arange(self.num_classes))
        order = np.argsort(ranks)
        names = self._class_names(samples)
        self._metainfo.update(classes=tuple(names[c] for c in order),
                              label_order=self.label_order)
        if counts is not None:
            self._metainfo['train_class_counts'] = tuple(
                counts[order].tolist())
        return ranks[samples.labels]

    def _train_counts(self, samples: ListFile) -> Optional[np.ndarray]:
        """Return training images per class in native order, if known."""
        if self.train_ann_file:
            samples = read_list_file(self.train_ann_file, self.num_classes)
        elif self.test_mode:
            return None
        counts = np.bincount(samples.labels, minlength=self.num_classes)
        if not self.allow_empty_classes:
            check_class_counts(samples.name, counts)
        return counts

    def _class_names(self, samples: ListFile) -> Sequence[str]:
        """Return the names in native order."""
        names = self._metainfo.get('classes')
        if names is None:
            return folder_names(samples.paths, samples.labels,
                                self.num_classes)
        if len(names) != self.num_classes:
            raise ValueError(f'metainfo names {len(names)} classes, but '
                             f'{type(self).__name__} has {self.num_classes}')
        return names


@DATASETS.register_module()
class ImageNetLT(ImageListDataset):
    """ImageNet-LT: 1000 classes, 115,846 training images, 1280 to 5 a class.

    Lists ``ImageNet_LT_train.txt`` and ``ImageNet_LT_test.txt`` (50,000
    images, the validation set of ImageNet), paths ``train/n.../....JPEG`` and
    ``val/n.../....JPEG``.
    """

    NUM_CLASSES = 1000


@DATASETS.register_module()
class PlacesLT(ImageListDataset):
    """Places-LT: 365 classes, 62,500 training images, 4980 to 5 a class.

    Lists ``Places_LT_train.txt`` and ``Places_LT_test.txt`` (36,500 images),
    paths ``train/airfield/....jpg`` and ``val/airfield/....jpg``.
    """

    NUM_CLASSES = 365


@DATASETS.register_module()
class INaturalist2018(ImageListDataset):
    """iNaturalist 2018: 8142 classes, 437,513 training images.

    Lists ``iNaturalist18_train.txt`` and ``iNaturalist18_val.txt`` (24,426
    images), paths ``train_val2018/<group>/<id>/....jpg``.
    """

    NUM_CLASSES = 8142
