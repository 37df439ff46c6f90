"""Training images per class, read from any data set that knows its labels."""
from typing import Any, List

import numpy as np


def dataset_labels(dataset: Any) -> np.ndarray:
    """Return the label of every sample, int64 (N,), without loading an image.

    Raises:
        TypeError: If the data set has neither MMPretrain's
            ``get_gt_labels()`` nor ``get_cat_ids(index)``.
        ValueError: If a sample has not exactly one label.
    """
    if hasattr(dataset, 'get_gt_labels'):
        labels = [dataset.get_gt_labels()]
    elif hasattr(dataset, 'get_cat_ids'):
        labels = [dataset.get_cat_ids(i) for i in range(len(dataset))]
        if any(len(ids) != 1 for ids in labels):
            raise ValueError(f'every sample of {type(dataset).__name__} must '
                             'have one label, but some have none or several')
    else:
        raise TypeError(
            f'{type(dataset).__name__} has neither get_gt_labels() nor '
            'get_cat_ids(index) to count its classes; give class_counts')
    return np.array(labels, dtype=np.int64).reshape(-1)


def dataset_class_counts(dataset: Any) -> List[int]:
    """Count the samples of each of the C classes.

    C is that of ``metainfo['classes']``, or else the largest label plus 1.

    Raises:
        TypeError: As :func:`dataset_labels`.
        ValueError: If there is no sample, or a label out of range.
    """
    labels = dataset_labels(dataset)
    if not len(labels):
        raise ValueError(
            f'{type(dataset).__name__} is empty; its classes need samples')
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    num_classes = len(classes) if classes else int(labels.max()) + 1
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f'labels of {type(dataset).__name__} must be in [0, '
                         f'{num_classes}), but they span [{labels.min()}, '
                         f'{labels.max()}]')
    return np.bincount(labels, minlength=num_classes).tolist()
