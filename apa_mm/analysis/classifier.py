"""Features, logits and labels at the last classifier of a model.

A classifier has one row per image, a detector one per RoI of its test run.

Legend: R rows, C classes, D features.
"""
from contextlib import ExitStack, contextmanager
from typing import Iterator, List, NamedTuple, Optional

import torch
from torch import Tensor, nn

from .errors import AnalysisError
from .loading import Batch, Subject, labels_of_boxes

#: Names that libraries give to last layers.
_LAST_LAYERS = ('fc_cls', 'fc', 'classifier')


class Rows(NamedTuple):
    """What the classifier saw and said, without the background's logit."""

    features: Tensor  # (R, D)
    logits: Tensor  # (R, C)
    labels: Tensor  # true classes, int64, (R,), -1 for a RoI on no object


def find_classifier(model: nn.Module, num_classes: int,
                    name: Optional[str] = None) -> str:
    """Return the name of the layer that gives the class logits.

    Of several it is the last one: of a cascade that of its last stage. It may
    have one output more than ``num_classes``, for background.
    """
    linear = [n for n, module in model.named_modules()
              if getattr(module, 'weight', None) is not None
              and module.weight.dim() == 2
              and len(module.weight) in (num_classes, num_classes + 1)]
    candidates = [n for n in linear
                  if n.rpartition('.')[2] in _LAST_LAYERS] or linear
    if name is not None and name not in candidates:
        raise AnalysisError(
            f'--classifier {name} is no linear layer with {num_classes} (or '
            f'one more) outputs; there are {candidates[-5:]}')
    if not candidates:
        raise AnalysisError(
            f'{type(model).__name__} has no linear layer with {num_classes} '
            '(or one more) outputs, as classifiers and RoI heads have; of '
            'others attention and parameters can be analysed')
    return name or candidates[-1]


class ClassifierRecord:
    """What hooks caught since :meth:`take`: classifier input, output; RoIs."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.clear()

    def clear(self) -> None:
        """Forget what was caught."""
        self.inputs: List[Tensor] = []
        self.outputs: List[Tensor] = []
        self.rois: List[Tensor] = []

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
            raise AnalysisError(f'an image has the labels {labels.tolist()}, '
                                'but exactly one is expected')
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
    """Catch what the classifier ``name`` sees and says; ``take`` every batch.

    Without a name it is looked for.
    """
    model = subject.model
    name = find_classifier(model, len(subject.classes), name)
    record = ClassifierRecord(len(subject.classes))

    def on_classifier(_: nn.Module, inputs: tuple, output: Tensor) -> None:
        record.inputs.append(inputs[0])
        record.outputs.append(output)

    with ExitStack() as hooks:
        hooks.enter_context(
            model.get_submodule(name).register_forward_hook(on_classifier))
        if 'bbox_head' in name:
            # In a cascade "bbox_head.2.fc_cls" has "bbox_roi_extractor.2".
            extractor = name.rpartition('.')[0].replace('bbox_head',
                                                        'bbox_roi_extractor')
            hooks.enter_context(
                model.get_submodule(extractor).register_forward_hook(
                    lambda _, inputs, output: record.rois.append(inputs[1])))
        yield record
