"""Reading one classified sample without importing MMPretrain."""
from typing import Any, Tuple

import torch
from torch import Tensor


def read_prediction(sample: dict) -> Tuple[int, int, Tensor]:
    """Return predicted class, true class and probabilities (C,) on the CPU.

    The class is ``pred_label`` (1,), or else the most probable one.

    Raises:
        KeyError: If ``pred_score`` or ``gt_label`` is missing.
        ValueError: If the sample has no label or several.
    """
    for key in ('pred_score', 'gt_label'):
        if key not in sample:
            raise KeyError(
                f'a data sample has no {key}, only {sorted(sample)}; use a '
                'classifier with one label per image, and pack gt_label')
    scores = torch.as_tensor(sample['pred_score']).detach().cpu()
    pred = _single(sample['pred_label'], 'pred_label') \
        if 'pred_label' in sample else int(scores.argmax())
    return pred, _single(sample['gt_label'], 'gt_label'), scores


def _single(value: Any, name: str) -> int:
    label = torch.as_tensor(value).reshape(-1)
    if len(label) != 1:
        raise ValueError(f'{name} must hold one class, but got '
                         f'{label.tolist()}; use single-label data')
    return int(label)
