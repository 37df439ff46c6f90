"""Features, logits and labels at the last classifier of a model.

A classifier has one row per image, a detector one per RoI of its test run.

Legend: R rows, C classes, D features.
"""
from contextlib import ExitStack, contextmanager
from typing import Dict, Iterator, List, NamedTuple, Optional

import numpy as np
import torch
from torch import Tensor, nn

from .errors import AnalysisError
from .loading import Batch, Subject

__all__ = [
    'BACKGROUND', 'ClassifierRecord', 'Rows', 'box_overlaps',
    'find_classifier', 'record_classifier'
]

#: Label of a RoI that is on no object.
BACKGROUND = -1
#: Overlap from which a RoI or a detection is on an object.
MATCH_OVERLAP = 0.5
#: Names that libraries give to last layers.
_NAMES = ('fc_cls', 'fc', 'classifier')


class Rows(NamedTuple):
    """What the classifier saw and said.

    Attributes:
        features (Tensor): Its input, (R, D).
        logits (Tensor): Its output without a background column, (R, C).
        labels (Tensor): True classes, int64, (R,); :data:`BACKGROUND` for a
            RoI that overlaps no object by :data:`MATCH_OVERLAP`.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor


def find_classifier(model: nn.Module, num_classes: int,
                    name: Optional[str] = None) -> str:
    """Return the name of the layer that gives the class logits.

    Args:
        model (nn.Module): A detector with RoI heads or a classifier.
        num_classes (int): C; a layer may have one output more, for
            background.
        name (str, optional): Take this one.

    Returns:
        str: Of several the last one: of a cascade that of its last stage.

    Raises:
        AnalysisError: If there is none, or ``name`` is none.

    Example:
        >>> find_classifier(nn.ModuleDict(dict(fc=nn.Linear(8, 3))), 3)
        'fc'
    """
    sizes = (num_classes, num_classes + 1)
    linear = [
        (inner, module) for inner, module in model.named_modules()
        if getattr(module, 'weight', None) is not None
        and module.weight.dim() == 2 and module.weight.shape[0] in sizes
    ]
    known = [n for n, _ in linear if n.split('.')[-1] in _NAMES]
    found = known or [n for n, _ in linear]
    if name is not None and name not in found:
        raise AnalysisError(
            f'--classifier {name} is no linear layer with {num_classes} (or '
            f'one more) outputs; there are {found[-5:]}')
    if not found:
        raise AnalysisError(
            f'{type(model).__name__} has no linear layer with {num_classes} '
            '(or one more) outputs, which a classifier or a detector with '
            'RoI heads has; of others attention and parameters can be '
            'analysed')
    return name or found[-1]


class ClassifierRecord:
    """What the hooks have caught since the last :meth:`take`."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.inputs: List[Tensor] = []
        self.outputs: List[Tensor] = []
        self.rois: List[Tensor] = []

    def on_classifier(self, module: nn.Module, inputs: tuple,
                      output: Tensor) -> None:
        """Keep input and output of the classifier."""
        self.inputs.append(inputs[0])
        self.outputs.append(output)

    def on_rois(self, module: nn.Module, inputs: tuple,
                output: Tensor) -> None:
        """Keep the boxes that a RoI extractor was asked for."""
        self.rois.append(inputs[1])

    def take(self, batch: Batch) -> Rows:
        """Return the rows of a batch and forget them.

        Args:
            batch (Batch): The images that went through the model.

        Returns:
            Rows: On the CPU, float32.
        """
        inputs, outputs, rois = self.inputs, self.outputs, self.rois
        self.inputs, self.outputs, self.rois = [], [], []
        if not outputs:  # a batch without proposals
            return Rows(torch.zeros(0, 0), torch.zeros(0, self.num_classes),
                        torch.zeros(0, dtype=torch.int64))
        features = torch.cat([x.flatten(1) for x in inputs]).float().cpu()
        logits = torch.cat(outputs).float().cpu()[:, :self.num_classes]
        if rois:
            labels = _roi_labels(torch.cat(rois).cpu(), batch)
        else:
            labels = torch.tensor([_one_label(x) for x in batch.labels])
        if len(labels) != len(logits):
            raise AnalysisError(
                f'the classifier gave {len(logits)} rows for {len(labels)} '
                'images or RoIs; choose another layer with --classifier')
        return Rows(features, logits, labels)


def _one_label(labels: np.ndarray) -> int:
    if len(labels) != 1:
        raise AnalysisError(f'an image has the labels {labels.tolist()}, but '
                            'a classifier with one label per image is '
                            'expected')
    return int(labels[0])


def _roi_labels(rois: Tensor, batch: Batch) -> Tensor:
    """Return the class of the object that each RoI (R, 5) is on."""
    labels = torch.full((len(rois), ), BACKGROUND)
    for i, (info, sample) in enumerate(
            zip(batch.infos, batch.samples, strict=True)):
        objects = [o for o in info['instances'] if not o.get('ignore_flag')]
        mine = torch.nonzero(rois[:, 0] == i).flatten()
        if not objects or not len(mine):
            continue
        width, height = sample.metainfo.get('scale_factor', (1, 1))
        boxes = np.array([o['bbox'] for o in objects], dtype=float) * [
            width, height, width, height]
        overlaps = box_overlaps(rois[mine, 1:].double().numpy(), boxes)
        best = overlaps.argmax(axis=1)
        hit = overlaps.max(axis=1) >= MATCH_OVERLAP
        classes = np.array([o['bbox_label'] for o in objects])[best]
        labels[mine] = torch.from_numpy(np.where(hit, classes, BACKGROUND))
    return labels


def box_overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes.

    Args:
        first (np.ndarray): x1, y1, x2, y2 in pixels, (N, 4).
        second (np.ndarray): (M, 4).

    Returns:
        np.ndarray: In [0, 1], (N, M).

    Example:
        >>> a, b = np.array([[0, 0, 2, 2]]), np.array([[1, 0, 3, 2]])
        >>> round(box_overlaps(a, b).item(), 4)
        0.3333
    """
    low = np.maximum(first[:, None, :2], second[:, :2])
    high = np.minimum(first[:, None, 2:], second[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
             for boxes in (first, second)]
    union = areas[0][:, None] + areas[1] - shared
    return shared / np.maximum(union, np.finfo(float).tiny)


@contextmanager
def record_classifier(subject: Subject, name: Optional[str] = None
                      ) -> Iterator[ClassifierRecord]:
    """Catch what the classifier sees and says, by hooks.

    Args:
        subject (Subject): The model.
        name (str, optional): Its classifier; None looks for it.

    Yields:
        ClassifierRecord: To be emptied by ``take`` after every batch.

    Raises:
        AnalysisError: If there is no classifier.
    """
    modules: Dict[str, nn.Module] = dict(subject.model.named_modules())
    name = find_classifier(subject.model, len(subject.classes), name)
    record = ClassifierRecord(len(subject.classes))
    with ExitStack() as stack:
        handle = modules[name].register_forward_hook(record.on_classifier)
        stack.callback(handle.remove)
        if 'bbox_head' in name:
            # In a cascade "bbox_head.2.fc_cls" has "bbox_roi_extractor.2".
            extractor = name.rpartition('.')[0].replace(
                'bbox_head', 'bbox_roi_extractor')
            handle = modules[extractor].register_forward_hook(record.on_rois)
            stack.callback(handle.remove)
        yield record
