"""Grad-CAM of classifiers and detectors, with the last gate's signal.

Grad-CAM (ICCV 2017) is that of the package grad-cam. A detector is explained
by the class logit of one RoI; there each place of the map keeps its own
gradient (HiResCAM, arXiv 2011.08891), as a mean over the map tells no place.

Legend: H, W of the network's input; R rows of the classifier, C classes.
"""
import re
from contextlib import ExitStack
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from apa_mm.functional.attention import GateStats, gate_stats, gate_sums
from apa_mm.layers.gates import find_gates, is_spatial, record_gates

from .classifier import record_classifier
from .errors import AnalysisError, check_finite
from .loading import BACKGROUND, Subject, labels_of_boxes, true_labels

#: A stage is fine enough for a picture from this many places a side; at 224
#: pixels the last stage of a ResNet has 7.
MIN_MAP = 7
_STAGE = re.compile(r'(.*backbone\.)?(layer\d+|stages\.\d+)')


class Explanation(NamedTuple):
    """Why a model says what it says of one image."""

    index: int  # of the image in its data set
    image: np.ndarray  # RGB in [0, 1], (H, W, 3)
    heat: np.ndarray  # Grad-CAM in [0, 1], (H, W)
    label: Optional[int]  # predicted class; None if nothing was found
    score: float  # its probability; NaN if nothing was found
    box: Optional[np.ndarray]  # x1, y1, x2, y2 in pixels of ``image``
    truth: List[int]  # true classes, of a detector that under the box
    gate: str  # the last gate; '' if there is none
    signal: np.ndarray  # its values, (C', ) or (H', W')
    stats: Optional[GateStats]  # of these values


class _ClassifierOutput(nn.Module):
    """A model that gives its class logits, (1, R, C), as grad-cam wants."""

    def __init__(self, subject: Subject, record: Any, samples: list) -> None:
        super().__init__()
        self.subject = [subject.model]  # a list: no parameters of our own
        self.record, self.samples = record, samples
        self.anchor = nn.Parameter(next(subject.model.parameters()).detach())
        self.predicted: list = []

    def forward(self, x: Tensor) -> Tensor:
        """Run the model in test mode."""
        self.record.clear()
        self.predicted = self.subject[0](x, self.samples, mode='predict')
        if not self.record.outputs:
            return x.new_zeros(1, 0, 0)
        return torch.cat(self.record.outputs)[None]


def choose_images(subject: Subject, number: int) -> Dict[int, str]:
    """Take the first images of every group of classes, by turns.

    Returns the group that each image was taken for, '' without groups.
    """
    if subject.groups is None:
        return {i: '' for i in subject.indices[:number]}
    waiting: Dict[str, List[int]] = {n: [] for n in subject.group_names}
    for i in subject.indices:
        for label in true_labels(subject.dataset.get_data_info(i)):
            waiting[subject.groups.name_of(label)].append(i)
    chosen: Dict[int, str] = {}
    while len(chosen) < number and any(waiting.values()):
        for name, queue in waiting.items():
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < number:
                chosen[queue.pop(0)] = name
    order = subject.group_names.index
    return dict(sorted(chosen.items(), key=lambda item: order(item[1])))


def choose_layer(subject: Subject, name: Optional[str] = None) -> str:
    """Return the layer to look at: ``name``, or else a stage of the backbone.

    It is the last stage whose map has at least :data:`MIN_MAP` places a side
    on the first image, or else the one with the largest map.
    """
    modules = dict(subject.model.named_modules())
    stages = [n for n in modules if _STAGE.fullmatch(n)]
    if name is not None:
        if name not in modules:
            raise AnalysisError(f'--layer {name} is no module of the model; '
                                f'its stages are {stages}')
        return name
    sizes: Dict[str, int] = {}
    with ExitStack() as hooks, torch.no_grad():
        for stage in stages:
            hooks.enter_context(modules[stage].register_forward_hook(
                lambda m, i, out, stage=stage: sizes.update(
                    {stage: min(out.shape[-2:])})))
        subject.model.test_step(
            pseudo_collate([subject.dataset[subject.indices[0]]]))
    if not sizes:
        raise AnalysisError(f'{type(subject.model).__name__} has no stages '
                            'layer1, ...; name a convolution with --layer')
    fine = [stage for stage in stages if sizes.get(stage, 0) >= MIN_MAP]
    return fine[-1] if fine else max(sizes, key=sizes.get)


def explain(subject: Subject, index: int, group: str, layer: str,
            classifier: Optional[str] = None) -> Explanation:
    """Explain one prediction for image ``index``.

    Of a detector that is the best detection of a class of ``group`` if there
    is one, or else the best of all.
    """
    from pytorch_grad_cam import GradCAM, HiResCAM
    model = subject.model
    info = subject.dataset.get_data_info(index)
    data = model.data_preprocessor(
        pseudo_collate([subject.dataset[index]]), False)
    x = data['inputs']
    x = x if isinstance(x, Tensor) else torch.stack(x)
    image = _image(x[0], model.data_preprocessor)
    gates = find_gates(model)
    last = dict(list(gates.items())[-1:])
    caught: List[Tensor] = []
    with record_classifier(subject, classifier) as record:
        wrapped = _ClassifierOutput(subject, record, data['data_samples'])
        target = _Target(subject, wrapped, group)
        method = GradCAM if 'gt_label' in info else HiResCAM
        looked_at = [model.get_submodule(layer)]
        with method(wrapped, looked_at) as cam, record_gates(
                model, lambda _, out: caught.append(out), last):
            heat = cam(x.requires_grad_(), [target])[0]
    model.zero_grad()
    signal, stats = np.zeros(0), None
    if caught:
        values = caught[-1][:1].detach()
        signal = values[0, 0] if is_spatial(values) else values.flatten()
        signal = signal.float().cpu().numpy()
        stats = gate_stats(gate_sums(values).sum(0))
    truth = true_labels(info)
    if target.box is not None:
        truth = labels_of_boxes(torch.from_numpy(target.box[None]), info,
                                data['data_samples'][0]).numpy()
    return Explanation(
        index, image, np.nan_to_num(heat), target.label, target.score,
        target.box, sorted(int(c) for c in truth if c != BACKGROUND),
        next(iter(last), ''), signal, stats)


class _Target:
    """Chooses the logit to explain; grad-cam calls it with the output."""

    def __init__(self, subject: Subject, wrapped: _ClassifierOutput,
                 group: str) -> None:
        self.subject, self.wrapped, self.group = subject, wrapped, group
        self.label: Optional[int] = None
        self.score, self.box = float('nan'), None

    def __call__(self, logits: Tensor) -> Tensor:
        """Return one of the logits (R, C)."""
        check_finite(logits, f'logits of {self.subject.source.checkpoint}')
        sample, = self.wrapped.predicted
        found = getattr(sample, 'pred_instances', None)
        if found is None:
            self.label = int(sample.pred_label)
            self.score = float(sample.pred_score[self.label].detach())
        else:
            self._choose_detection(found, sample)
        if self.label is None or not logits.numel():
            return 0 * logits.sum() + 0 * self.wrapped.anchor.sum()
        return logits[:, self.label].max()

    def _choose_detection(self, found: Any, sample: Any) -> None:
        if not len(found):
            return
        scores, labels = found.scores.detach(), found.labels
        groups = self.subject.groups
        if groups is not None:
            wanted = torch.tensor([groups.name_of(int(c)) == self.group
                                   for c in labels], device=scores.device)
            if wanted.any():
                scores = scores.where(wanted, scores.new_tensor(-1.))
        best = int(scores.argmax())
        self.label, self.score = int(labels[best]), float(scores[best])
        width, height = sample.metainfo.get('scale_factor', (1, 1))
        self.box = found.bboxes[best].detach().cpu().numpy() * [
            width, height, width, height]


def _image(x: Tensor, preprocessor: nn.Module) -> np.ndarray:
    """Undo the normalisation: RGB in [0, 1], (H, W, 3)."""
    image = x.detach().cpu()
    if getattr(preprocessor, '_enable_normalize', False):
        image = image * preprocessor.std.cpu() + preprocessor.mean.cpu()
    if not getattr(preprocessor, '_channel_conversion', False):
        image = image.flip(0)  # images are read as BGR
    return (image.permute(1, 2, 0) / 255).clamp(0, 1).numpy()
