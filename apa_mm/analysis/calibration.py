"""Reliability, ECE and MCE of frequent, common and rare classes (Fig. 8)."""
from typing import Any, Dict, NamedTuple, Optional, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from apa_mm.evaluation.predictions import read_prediction
from apa_mm.functional.calibration import (CalibrationBins, calibration_bins,
                                           expected_calibration_error,
                                           maximum_calibration_error)

from .errors import AnalysisError, check_finite
from .loading import (MATCH_OVERLAP, Batch, Settings, Source, Subject,
                      load_subjects, objects_of, run_images)
from .plot_style import BAR_STYLES, drawing, line_style
from .runs import View

TEXT = (
    'Accuracy of the predictions of every confidence; on the diagonal a '
    'confidence means what it says, below it the model is too sure. Bins of '
    'equal width, closed on the right; below, the share of predictions in '
    'each. Groups of a classifier are by true class; of a detector by '
    'predicted class, and a detection is right if it is the best one on an '
    'object of its class (overlap at least 0.5).')
COLUMNS = ('run', 'group', 'low', 'high', 'count', 'accuracy', 'confidence')


class Calibration(NamedTuple):
    """Calibration of some samples; without any the numbers are NaN."""

    count: int
    ece: float  # in [0, 1]
    mce: float
    accuracy: float
    confidence: float
    bins: CalibrationBins


def group_calibration(confidences: Tensor, correct: Tensor,
                      groups: Optional[Dict[str, Tensor]] = None,
                      num_bins: int = 10) -> Dict[str, Calibration]:
    """Compute the calibration of 'all' samples, then of groups of them.

    Probabilities of the predicted classes, whether these are right, and masks
    of groups by name (bool) are (N,); bins are those of
    :func:`~apa_mm.functional.calibration_bins`.

    Example:
        >>> result = group_calibration(
        ...     torch.tensor([0.9, 0.9]), torch.tensor([True, False]),
        ...     dict(few=torch.tensor([False, True])))
        >>> [round(c.ece, 4) for c in result.values()]
        [0.4, 0.9]
    """
    everything = torch.ones_like(correct, dtype=torch.bool)
    masks = dict(all=everything, **groups or {})
    return {name: _calibration(confidences[mask], correct[mask], num_bins)
            for name, mask in masks.items()}


def _calibration(confidences: Tensor, correct: Tensor,
                 num_bins: int) -> Calibration:
    bins = calibration_bins(confidences, correct, num_bins)
    if not len(correct):
        return Calibration(0, *[float('nan')] * 4, bins)
    return Calibration(
        len(correct), float(expected_calibration_error(bins)),
        float(maximum_calibration_error(bins)),
        float(correct.double().mean()), float(confidences.double().mean()),
        bins)


def analyze(sources: Sequence[Source], settings: Settings,
            num_bins: int = 10) -> View:
    """Compute calibration of some checkpoints: rows per run, group, bin."""
    view = View('Calibration', TEXT, settings=dict(num_bins=num_bins))
    found: Dict[str, Dict[str, Calibration]] = {}
    for subject in load_subjects(sources, settings, view.notes):
        run = subject.name
        found[run] = _measure(subject, num_bins)
        view.metrics[run] = {}
        for group, c in found[run].items():
            view.metrics[run][group] = dict(c._asdict(), bins=c.bins._asdict())
            view.summary.append(dict(
                run=run, group=group, predictions=c.count, ece=c.ece,
                mce=c.mce, accuracy=c.accuracy, confidence=c.confidence))
            edges, *columns = (column.tolist() for column in c.bins)
            bins = zip(edges[:-1], edges[1:], *columns, strict=True)
            view.rows += [dict(zip(COLUMNS, (run, group, *item), strict=True))
                          for item in bins]
    view.pictures = {'calibration.png': lambda path: _draw(found, path)}
    return view


def _measure(subject: Subject, num_bins: int) -> Dict[str, Calibration]:
    parts = []
    for batch in run_images(subject, 'calibration'):
        if hasattr(batch.samples[0], 'pred_instances'):
            parts += [_detections(*pair) for pair in
                      zip(batch.infos, batch.samples, strict=True)]
        else:
            parts.append(_classified(batch))
    confidences, correct, labels = (
        torch.from_numpy(np.concatenate(column))
        for column in zip(*parts, strict=True))
    check_finite(confidences, f'confidences of {subject.source.checkpoint}')
    groups = {}
    if subject.groups is not None:
        index = torch.from_numpy(subject.groups.index)[labels]
        groups = {name: index == i for i, name in
                  enumerate(subject.group_names)}
    return group_calibration(confidences, correct, groups, num_bins)


def _classified(batch: Batch) -> tuple:
    """Return confidences, hits and true labels of classified images."""
    confidences, hits, labels = [], [], []
    for sample in batch.samples:
        pred, label, scores = read_prediction(sample.to_dict())
        if len(scores) < 2:
            raise AnalysisError(
                'the classifier has one class, whose confidence is always 1, '
                'but calibration needs at least 2; analyse another model')
        confidences.append(float(scores[pred]))
        hits.append(pred == label)
        labels.append(label)
    # Softmax in float32 may miss 1 by its rounding error.
    return (np.minimum(np.array(confidences, np.float32), 1),
            np.array(hits, bool), np.array(labels, np.int64))


def _detections(info: dict, sample: Any) -> tuple:
    """Return scores, hits and predicted labels of one image's detections."""
    instances = sample.pred_instances.cpu()
    objects = objects_of(info)
    hits = match_detections(
        instances.bboxes.numpy(), instances.labels.numpy(),
        instances.scores.numpy(),
        np.reshape([o['bbox'] for o in objects], (-1, 4)).astype(float),
        np.array([o['bbox_label'] for o in objects], dtype=np.int64))
    return (instances.scores.float().numpy(), hits,
            instances.labels.numpy().astype(np.int64))


def match_detections(boxes: np.ndarray, labels: np.ndarray,
                     scores: np.ndarray, true_boxes: np.ndarray,
                     true_labels: np.ndarray) -> np.ndarray:
    """Return which detections of an image are right, bool (N,).

    From the highest score down, a detection takes the object of its class
    that it overlaps most, by at least 0.5; every object is taken once. Boxes
    are x1, y1, x2, y2, (N, 4) and (M, 4).
    """
    hits = np.zeros(len(boxes), dtype=bool)
    if not len(boxes) or not len(true_boxes):
        return hits
    overlaps = box_iou(*(torch.from_numpy(b).double() for b in
                         (boxes, true_boxes))).nan_to_num().numpy()
    overlaps[labels[:, None] != true_labels] = 0
    for i in np.argsort(-scores, kind='stable'):
        best = overlaps[i].argmax()
        if overlaps[i, best] >= MATCH_OVERLAP:
            hits[i] = True
            overlaps[:, best] = 0
    return hits


def _draw(found: Dict[str, Dict[str, Calibration]], path: str) -> None:
    """Draw a reliability diagram per group and the shares of the bins."""
    groups = list(dict.fromkeys(g for run in found.values() for g in run))
    with drawing(path, 2, len(groups), 2.7, 2.4, sharex=True, sharey='row',
                 height_ratios=(2, 1)) as (_, axes):
        for j, group in enumerate(groups):
            upper, lower = axes[0][j], axes[1][j]
            upper.plot([0, 1], [0, 1], color='black', linewidth=0.8)
            for number, (run, calibrations) in enumerate(found.items()):
                if group not in calibrations:
                    continue
                mine = calibrations[group]
                bins, there = mine.bins, mine.bins.counts > 0
                upper.plot(bins.confidence[there], bins.accuracy[there],
                           label=f'{run}, ECE {100 * mine.ece:.1f} %',
                           **line_style(number))
                width = 1 / len(bins.counts) / len(found)
                lower.bar(bins.edges[:-1] + (number + 0.5) * width,
                          100 * (bins.counts / max(mine.count, 1)), width,
                          linewidth=0.5,
                          **BAR_STYLES[number % len(BAR_STYLES)])
            upper.legend(loc='upper left', handlelength=1.5, borderpad=0.2)
            upper.set(title=group, yticks=[0, 0.25, 0.5, 0.75, 1],
                      ylim=(0, 1.3))  # room for the legend
            lower.set_xlabel('confidence')
        axes[0][0].set_ylabel('accuracy')
        axes[1][0].set_ylabel('predictions [%]')
