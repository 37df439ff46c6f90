"""Accuracy on classes with many, a medium number of and few train images.

Labels of N samples are int64 in [0, C), (N,), train images per class (C,).
"""
from typing import Dict, Sequence, Union

import torch
from torch import Tensor

#: A class with more train images than this is many-shot.
MANY_SHOT = 100
#: A class with fewer train images than this is few-shot.
FEW_SHOT = 20


def shot_groups(class_counts: Union[Tensor, Sequence[int]],
                many: int = MANY_SHOT, few: int = FEW_SHOT
                ) -> Dict[str, Tensor]:
    """Return masks 'many', 'medium' and 'few' of classes, bool, (C,).

    Many-shot classes have more than ``many`` images, few-shot ones fewer than
    ``few``; both borders belong to the medium group.

    Raises:
        ValueError: If ``class_counts`` is no vector, has a negative entry, or
            ``few > many + 1`` (a class would be in two groups).

    Example:
        >>> groups = shot_groups([101, 100, 20, 19])
        >>> [groups[name].tolist().index(True) for name in groups]
        [0, 1, 3]
    """
    counts = torch.as_tensor(class_counts)
    if counts.dim() != 1 or (counts < 0).any():
        raise ValueError(
            'class_counts must be a vector of counts that are not negative, '
            f'but got shape {tuple(counts.shape)}'
            f'{"" if counts.dim() != 1 else f" with minimum {counts.min()}"}')
    if few > many + 1:
        raise ValueError(
            f'few must be at most many + 1, but got few={few} and '
            f'many={many}; classes in between would be in two groups')
    medium = (counts <= many) & (counts >= few)
    return dict(many=counts > many, medium=medium, few=counts < few)


def per_class_accuracy(pred_labels: Tensor, gt_labels: Tensor,
                       num_classes: int) -> Tensor:
    """Return the share of correct samples of every class, float64, (C,).

    NaN for a class without samples.

    Raises:
        ValueError: If the shapes differ or a true class is out of range.
    """
    if pred_labels.dim() != 1 or pred_labels.shape != gt_labels.shape:
        raise ValueError(
            'pred_labels and gt_labels must be vectors of one length, but '
            f'got shapes {tuple(pred_labels.shape)} and '
            f'{tuple(gt_labels.shape)}')
    if ((gt_labels < 0) | (gt_labels >= num_classes)).any():
        raise ValueError(
            f'gt_labels must be in [0, {num_classes}), but they span '
            f'[{int(gt_labels.min())}, {int(gt_labels.max())}]; the test set '
            f'and the train set must have the same {num_classes} classes')
    hits = torch.bincount(
        gt_labels[pred_labels == gt_labels], minlength=num_classes)
    return hits.double() / torch.bincount(gt_labels, minlength=num_classes)


def shot_accuracy(pred_labels: Tensor, gt_labels: Tensor,
                  class_counts: Union[Tensor, Sequence[int]],
                  many: int = MANY_SHOT, few: int = FEW_SHOT
                  ) -> Dict[str, Tensor]:
    """Return the mean class accuracy of each group of classes.

    A group's value is the unweighted mean over its classes that have test
    samples, in [0, 1], float64, 0-d; NaN, not 0, without such a class.
    Arguments and errors are those of :func:`shot_groups` and
    :func:`per_class_accuracy`.

    Example:
        >>> pred, gt = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 2])
        >>> shots = shot_accuracy(pred, gt, [500, 300, 5])
        >>> {name: float(value) for name, value in shots.items()}
        {'many': 0.75, 'medium': nan, 'few': 1.0}
    """
    counts = torch.as_tensor(class_counts).to(gt_labels.device)
    accuracy = per_class_accuracy(pred_labels, gt_labels, len(counts))
    return {name: accuracy[mask].nanmean()
            for name, mask in shot_groups(counts, many, few).items()}
