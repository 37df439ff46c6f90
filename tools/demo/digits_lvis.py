"""Digits-LVIS: a small long-tailed instance segmentation set.

Real handwritten digits (the 1,797 that scikit-learn ships) are pasted at
random size and place on noisy canvases. A class is a digit in a colour, e.g.
``red_7``. The annotation files have the format of LVIS v1, so
``mmdet.LVISV1Dataset`` and every LVIS evaluator read them:

* train is long-tailed: the k-th class gets a share proportional to decay**k;
* val is balanced and drawn from other handwritten digits than train;
* ``frequency`` is decided by the train images, as in LVIS v1 (r up to 10, c up
  to 100 of about 100,000 images, f beyond), with thresholds that leave about
  a third of the classes in each group of so small a set:
  :data:`RARE_FRACTION` and :data:`COMMON_FRACTION`;
* ``image_count`` and ``instance_count`` are those of the file they stand in;
* the annotation is federated, as that of LVIS (see :mod:`.federated`): train
  labels each class on a share of its images, val on all of them, and both
  list a few verified negatives. ``exhaustive=True`` labels everything and
  lists every absent class.

Legend: H, W height and width of an image in pixels.
"""
from collections import Counter
from dataclasses import dataclass
from itertools import cycle
from typing import Dict, Iterator, List, Tuple

import numpy as np
from numpy import ndarray

from .canvas import (COLOURS, MASK_THRESHOLD, background, mask_polygons,
                     place, polygon_area, polygon_box, stamp)
from .federated import hide_labels, limit_negatives, list_absent

__all__ = [
    'CLASSES', 'COMMON_FRACTION', 'DigitsLVISSettings', 'RARE_FRACTION',
    'Split', 'class_quotas', 'draw_splits'
]

#: Class names in the order of their labels; category ids start at 1.
CLASSES = tuple(f'{colour}_{digit}' for digit in range(10)
                for colour in COLOURS)
#: A class on at most this share of the train images is rare (r) ...
RARE_FRACTION = 0.02
#: ... and one on at most this share is common (c), the others frequent (f).
#: Both shrink with the share of images that are labelled.
COMMON_FRACTION = 0.1
#: Share of the handwritten digits that only the val images show.
VAL_DIGITS = 0.25
#: Objects on an image: from 1 to this, every number as likely.
MAX_OBJECTS = 5


@dataclass(frozen=True)
class DigitsLVISSettings:
    """Everything that decides what Digits-LVIS holds.

    Args:
        num_train (int): Train images. Defaults to 1000.
        num_val (int): Val images. Defaults to 200.
        image_size (int): Height and width in pixels. Defaults to 128.
        min_digit (int): Smallest longer side of a digit in pixels.
            Defaults to 20.
        max_digit (int): Largest longer side of a digit in pixels.
            Defaults to 48.
        decay (float): Ratio of one class's share of the train objects to the
            share of the next more frequent one, in (0, 1]. Defaults to 0.86.
        seed (int): Seed of everything random. Defaults to 0.
        exhaustive (bool): Label everything. Defaults to False.
        unlabelled (float): Share of each class's train images on which it is
            not labelled, in [0, 1). Defaults to 0.5.
        train_negatives (int): Verified negative train images of each class.
            Defaults to 40.
        val_negatives (int): The same of the val images. Defaults to 10.

    Raises:
        ValueError: If a value is out of its range.

    Example:
        >>> DigitsLVISSettings(seed=3).num_train
        1000
    """
    num_train: int = 1000
    num_val: int = 200
    image_size: int = 128
    min_digit: int = 20
    max_digit: int = 48
    decay: float = 0.86
    seed: int = 0
    exhaustive: bool = False
    unlabelled: float = 0.5
    train_negatives: int = 40
    val_negatives: int = 10

    def __post_init__(self) -> None:
        for name in ('num_train', 'num_val'):
            if getattr(self, name) < len(CLASSES):
                raise ValueError(
                    f'{name} must be at least {len(CLASSES)}, one image per '
                    f'class, but got {getattr(self, name)}; raise {name}')
        if not 8 <= self.min_digit <= self.max_digit <= self.image_size:
            raise ValueError(
                'digit sizes must obey 8 <= min_digit <= max_digit <= '
                f'image_size, but got min_digit={self.min_digit}, '
                f'max_digit={self.max_digit}, image_size={self.image_size}; '
                'change the one that is out of order')
        if not 0 < self.decay <= 1:
            raise ValueError(f'decay must be in (0, 1], but got {self.decay}; '
                             'use e.g. 0.86')
        if not 0 <= self.unlabelled < 1:
            raise ValueError('unlabelled must be in [0, 1), but got '
                             f'{self.unlabelled}; use e.g. 0.5')
        if min(self.train_negatives, self.val_negatives) < 0:
            raise ValueError(
                'negatives must not be fewer than 0, but got '
                f'train_negatives={self.train_negatives}, '
                f'val_negatives={self.val_negatives}; use e.g. 40 and 10')
        if self.seed < 0:
            raise ValueError('seed must not be negative, but got '
                             f'{self.seed}; use e.g. 0')


@dataclass(frozen=True)
class Split:
    """One drawn split.

    Args:
        images (list[ndarray]): uint8 RGB images, each (H, W, 3).
        annotations (dict): Contents of the split's LVIS v1 annotation file.
    """
    images: List[ndarray]
    annotations: dict


def class_quotas(num_objects: int, decay: float) -> ndarray:
    """Share objects among the classes, the k-th getting about decay**k.

    Quotas rather than draws, so that no seed leaves a class empty.

    Args:
        num_objects (int): Objects to share out, at least one per class.
        decay (float): Ratio of neighbouring shares; 1 gives a balanced set.

    Returns:
        ndarray: int (30,), largest first, summing to ``num_objects``.

    Example:
        >>> set(class_quotas(60, decay=1.0).tolist())
        {2}
    """
    share = decay**np.arange(len(CLASSES))
    exact = (num_objects - len(CLASSES)) * share / share.sum()
    quotas = 1 + np.floor(exact).astype(int)
    missing = num_objects - quotas.sum()
    quotas[np.argsort(-(exact % 1), kind='stable')[:missing]] += 1
    return np.sort(quotas)[::-1]


def draw_splits(settings: DigitsLVISSettings) -> Dict[str, Split]:
    """Draw the whole set in memory.

    Args:
        settings (DigitsLVISSettings): What to draw.

    Returns:
        dict[str, Split]: The splits ``train`` and ``val``.

    Raises:
        ValueError: If the digits do not fit on the images.
    """
    ranking_rng, digit_rng, train_rng, val_rng, label_rng = (
        np.random.default_rng(child)
        for child in np.random.SeedSequence(settings.seed).spawn(5))
    ranking = ranking_rng.permutation(len(CLASSES))
    pools, digits = _digit_pools(digit_rng)
    splits = {}
    for name, rng, num_images, decay in (
        ('train', train_rng, settings.num_train, settings.decay),
        ('val', val_rng, settings.num_val, 1.0)):
        labels = _labels_per_image(rng, num_images, decay, ranking)
        drawn = [
            _draw(rng, here, pools[name], digits, settings) for here in labels
        ]
        splits[name] = Split([image for image, _ in drawn],
                             _lvis_file(name, [anns for _, anns in drawn],
                                        settings))
    labelled = 1.0
    if not settings.exhaustive:
        labelled = 1 - settings.unlabelled
        train, val = (splits[name].annotations for name in ('train', 'val'))
        limit_negatives(train, settings.train_negatives, label_rng)
        limit_negatives(val, settings.val_negatives, label_rng)
        hide_labels(train, settings.unlabelled, label_rng)
    _fill_categories(splits, labelled)
    return splits


def _digit_pools(
        rng: np.random.Generator
) -> Tuple[Dict[str, List[Iterator]], ndarray]:
    """Deal the handwritten digits to the splits, none to both.

    Returns:
        tuple: Per split one endless iterator for every digit over the indices
        of its examples, and all examples as (1797, 8, 8) in [0, 16].
    """
    from sklearn.datasets import load_digits
    data = load_digits()
    pools = dict(train=[], val=[])
    for digit in range(10):
        indices = rng.permutation(np.flatnonzero(data.target == digit))
        border = int(round(len(indices) * VAL_DIGITS))
        pools['val'].append(cycle(indices[:border].tolist()))
        pools['train'].append(cycle(indices[border:].tolist()))
    return pools, data.images


def _labels_per_image(rng: np.random.Generator, num_images: int, decay: float,
                      ranking: ndarray) -> List[ndarray]:
    """Decide which classes stand on which image.

    Returns:
        list[ndarray]: Labels in [0, 30) of the objects of every image.
    """
    sizes = rng.integers(1, MAX_OBJECTS + 1, size=num_images)
    labels = np.repeat(ranking, class_quotas(int(sizes.sum()), decay))
    return np.split(rng.permutation(labels), np.cumsum(sizes)[:-1])


def _draw(rng: np.random.Generator, labels: ndarray, pools: List[Iterator],
          digits: ndarray,
          settings: DigitsLVISSettings) -> Tuple[ndarray, List[dict]]:
    """Draw one image.

    Returns:
        tuple: uint8 RGB image (H, W, 3) and one annotation per object, still
        without its own id and that of its image.
    """
    canvas = background(rng, settings.image_size)
    hues = tuple(COLOURS.values())
    boxes, annotations = [], []
    for label in labels.tolist():
        index = next(pools[label // len(hues)])
        patch, x, y = place(rng, settings.image_size,
                            (settings.min_digit, settings.max_digit),
                            digits[index], boxes)
        stamp(rng, canvas, patch, x, y, hues[label % len(hues)])
        height, width = patch.shape
        boxes.append((x, y, x + width, y + height))
        polygons = mask_polygons(patch >= MASK_THRESHOLD, x, y)
        annotations.append(
            dict(
                category_id=label + 1,
                segmentation=polygons,
                bbox=polygon_box(polygons),
                area=polygon_area(polygons),
                digit_index=index))
    return canvas.round().astype(np.uint8), annotations


def _lvis_file(name: str, per_image: List[List[dict]],
               settings: DigitsLVISSettings) -> dict:
    """Number images and annotations and list the absent classes."""
    images, annotations = [], []
    for image_id, found in enumerate(per_image, start=1):
        file_name = f'{name}/{image_id:06d}.png'
        images.append(
            dict(
                id=image_id,
                width=settings.image_size,
                height=settings.image_size,
                # mmdet's LVISV1Dataset takes the path from coco_url.
                coco_url=file_name,
                file_name=file_name,
                not_exhaustive_category_ids=[]))
        for annotation in found:
            annotations.append(
                dict(
                    id=len(annotations) + 1, image_id=image_id, **annotation))
    info = dict(description=f'Digits-LVIS {name}', version='v1')
    return list_absent(
        dict(info=info, images=images, annotations=annotations),
        range(1, len(CLASSES) + 1))


def _count(annotations: List[dict]) -> Tuple[Counter, Counter]:
    """Count the images and the instances of every category id."""
    pairs = {(ann['image_id'], ann['category_id']) for ann in annotations}
    return (Counter(category_id for _, category_id in pairs),
            Counter(ann['category_id'] for ann in annotations))


def _fill_categories(splits: Dict[str, Split], labelled: float) -> None:
    """Write the categories of every split, in place.

    Args:
        splits (dict[str, Split]): Without categories.
        labelled (float): Share of a class's train images with its labels.
    """
    train = splits['train']
    train_counts, _ = _count(train.annotations['annotations'])
    expected = len(train.images) * labelled
    for split in splits.values():
        images, instances = _count(split.annotations['annotations'])
        split.annotations['categories'] = [
            dict(
                id=category_id,
                name=name,
                synset=f'{name}.n.01',
                synonyms=[name],
                frequency=_frequency(train_counts[category_id] / expected),
                image_count=images[category_id],
                instance_count=instances[category_id])
            for category_id, name in enumerate(CLASSES, start=1)
        ]


def _frequency(fraction: float) -> str:
    """Return the group of a class by its share of the train images."""
    if fraction <= RARE_FRACTION:
        return 'r'
    return 'c' if fraction <= COMMON_FRACTION else 'f'
