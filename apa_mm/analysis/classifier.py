"""Features, logits and labels at the last classifier of a model.

A classifier has one row per image, a detector one per RoI of its test run.

Legend: R rows, C classes, D features.
"""
from contextlib import ExitStack, contextmanager
from typing import Dict, Iterator, List, NamedTuple, Optional

import torch
from torch import Tensor, nn

from .errors import AnalysisError
from .loading import Batch, Subject, labels_of_boxes

__all__ = ['ClassifierRecord', 'Rows', 'find_classifier', 'record_classifier']

#: Names that libraries give to last layers.
_NAMES = ('fc_cls', 'fc', 'classifier')


class Rows(NamedTuple):
    """Input (R, D) and logits (R, C) of the classifier, without background.

    ``labels`` are the true classes, int64, (R,), -1 for a RoI on no object.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor


def find_classifier(model: nn.Module, num_classes: int,
                    name: Optional[str] = None) -> str:
    """Return the name of the layer that gives the class logits.

    Of several it is the last one: of a cascade that of its last stage. It may
    have one output more than ``num_classes``, for background.

    Raises:
        AnalysisError: If there is none, or ``name`` is none.

    Example:
        >>> find_classifier(nn.ModuleDict(dict(fc=nn.Linear(8, 3))), 3)
        'fc'
    """
    linear = [
        inner for inner, module in model.named_modules()
        if getattr(module, 'weight', None) is not None
        and module.weight.dim() == 2
        and module.weight.shape[0] in (num_classes, num_classes + 1)
    ]
    candidates = [n for n in linear if n.split('.')[-1] in _NAMES] or linear
    if name is not None and name not in candidates:
        raise AnalysisError(
            f'--classifier {name} is no linear layer with {num_classes} (or '
            f'one more) outputs; there are {candidates[-5:]}')
    if not candidates:
        raise AnalysisError(
            f'{type(model).__name__} has no linear layer with {num_classes} '
            '(or one more) outputs, which a classifier or a detector with '
            'RoI heads has; of others attention and parameters can be '
            'analysed')
    return name or candidates[-1]


class ClassifierRecord:
    """What the hooks have caught since the last :meth:`take`."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.clear()

    def clear(self) -> None:
        """Forget what was caught."""
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
        """Return the rows of a batch, on the CPU in float32; forget them."""
        inputs, outputs, rois = self.inputs, self.outputs, self.rois
        self.clear()
        if not outputs:  # a batch without proposals
            return Rows(torch.zeros(0, 0), torch.zeros(0, self.num_classes),
                        torch.zeros(0, dtype=torch.int64))
        features = torch.cat([x.flatten(1) for x in inputs]).float().cpu()
        logits = torch.cat(outputs).float().cpu()[:, :self.num_classes]
        labels = _roi_labels(torch.cat(rois).cpu(), batch) if rois else (
            _image_labels(batch))
        if len(labels) != len(logits):
            raise AnalysisError(
                f'the classifier gave {len(logits)} rows for {len(labels)} '
                'images or RoIs; choose another layer with --classifier')
        return Rows(features, logits, labels)


def _image_labels(batch: Batch) -> Tensor:
    for labels in batch.labels:
        if len(labels) != 1:
            raise AnalysisError(
                f'an image has the labels {labels.tolist()}, but a classifier '
                'with one label per image is expected')
    return torch.tensor([int(labels[0]) for labels in batch.labels])


def _roi_labels(rois: Tensor, batch: Batch) -> Tensor:
    """Return the class of the object that each RoI (R, 5) is on."""
    labels = torch.empty(len(rois), dtype=torch.int64)
    for i, (info, sample) in enumerate(
            zip(batch.infos, batch.samples, strict=True)):
        mine = rois[:, 0] == i
        labels[mine] = labels_of_boxes(rois[mine, 1:], info, sample)
    return labels


@contextmanager
def record_classifier(subject: Subject, name: Optional[str] = None
                      ) -> Iterator[ClassifierRecord]:
    """Catch what the classifier sees and says, by hooks.

    Args:
        subject (Subject): The model.
        name (str, optional): Its classifier; None looks for it.

    Yields:
        ClassifierRecord: To be emptied by ``take`` after every batch.
    """
    modules: Dict[str, nn.Module] = dict(subject.model.named_modules())
    name = find_classifier(subject.model, len(subject.classes), name)
    record = ClassifierRecord(len(subject.classes))
    listeners = {name: record.on_classifier}
    if 'bbox_head' in name:
        # In a cascade "bbox_head.2.fc_cls" has "bbox_roi_extractor.2".
        listeners[name.rpartition('.')[0].replace(
            'bbox_head', 'bbox_roi_extractor')] = record.on_rois
    with ExitStack() as stack:
        for site, listen in listeners.items():
            stack.callback(modules[site].register_forward_hook(listen).remove)
        yield record
