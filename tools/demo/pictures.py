"""Pictures of a trained detector: predictions, learned kappa and lambda.

Legend: H, W height and width of an image in pixels; N objects on it.
"""
from dataclasses import dataclass
from typing import List, Sequence, Tuple

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from numpy import ndarray
from torch import nn
from torchvision.ops import box_iou

from apa_mm.analysis.loading import MATCH_OVERLAP
from apa_mm.analysis.parameters import draw_pairs
from apa_mm.analysis.plot_style import drawing
from apa_mm.analysis.traces import starts_of
from apa_mm.layers.pairs import model_pairs

__all__ = [
    'Objects', 'Panel', 'collect_panels', 'draw_predictions',
    'load_detector', 'save_predictions', 'save_sites'
]

#: Predictions with lower scores are not drawn.
SCORE_THRESHOLD = 0.3
RIGHT_COLOUR, WRONG_COLOUR = 'white', 'orange'
#: RGBA of the inside of a mask.
MASK_FILL = (1, 1, 1, 0.25)
#: Room above an image as a part of its height.
CAPTION_MARGIN = 0.08
#: Width of one drawn image in inches.
PANEL_INCHES = 4.0


@dataclass(frozen=True)
class Objects:
    """Objects on one image.

    Args:
        boxes (ndarray): float (N, 4), x1, y1, x2, y2 in pixels.
        masks (ndarray): bool (N, H, W).
        labels (ndarray): int (N,).
        captions (list[str]): What to write beside every object.
        right (ndarray): bool (N,), whether class and place are right.
    """
    boxes: ndarray
    masks: ndarray
    labels: ndarray
    captions: List[str]
    right: ndarray


@dataclass(frozen=True)
class Panel:
    """One image with its annotated and its predicted objects.

    Args:
        image (ndarray): uint8 RGB (H, W, 3).
        truth (Objects): The annotation.
        predicted (Objects): The detector's output.
    """
    image: ndarray
    truth: Objects
    predicted: Objects


def load_detector(config: str, checkpoint: str) -> Tuple[Config, nn.Module]:
    """Build the model of a config and load its weights on the CPU.

    Args:
        config (str): Config file.
        checkpoint (str): File that mmengine's Runner has written.

    Returns:
        tuple[Config, nn.Module]: The config, and the model in eval mode.
    """
    cfg = Config.fromfile(config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model)
    load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    return cfg, model.eval()


def save_predictions(cfg: Config,
                     model: nn.Module,
                     out_file: str,
                     num_images: int = 8) -> None:
    """Draw evenly spaced test images, truth beside prediction, to a PNG.

    Args:
        cfg (Config): Config with a ``test_dataloader``.
        model (nn.Module): The trained detector.
        out_file (str): PNG to write.
        num_images (int): Images to draw. Defaults to 8.
    """
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    # Evenly spaced, so that nobody picks the images that look good.
    indices = np.linspace(0, len(dataset) - 1, num_images).round().astype(int)
    panels = collect_panels(model, dataset, indices.tolist())
    draw_predictions(panels, out_file)


def save_sites(model: nn.Module, checkpoint: str, out_file: str) -> int:
    """Draw how kappa and lambda of every layer have moved to a PNG.

    Args:
        model (nn.Module): The trained model.
        checkpoint (str): Its checkpoint; ``ParameterTraceHook`` has left the
            values at the start of training beside it.
        out_file (str): PNG to write; none is written for a model without
            APA and AGLU.

    Returns:
        int: Number of (kappa, lambda) pairs of the model.
    """
    pairs = model_pairs(model)
    if pairs:
        draw_pairs({'training': pairs}, out_file, ('kappa', 'lambd'),
                   {'training': starts_of(checkpoint, pairs)})
    return sum(pair.kappa.numel() for pair in pairs)


def collect_panels(model: nn.Module, dataset: torch.utils.data.Dataset,
                   indices: Sequence[int]) -> List[Panel]:
    """Predict some images of a detection set.

    Args:
        model (nn.Module): The trained detector.
        dataset (Dataset): An mmdet set in test mode.
        indices (Sequence[int]): Which of its images to take.

    Returns:
        list[Panel]: One per index. Predictions below
        :data:`SCORE_THRESHOLD` are left out, and so are those that another,
        better one covers, of whatever class.
    """
    names = dataset.metainfo['classes']
    panels = []
    for index in indices:
        info = dataset.get_data_info(index)
        image = mmcv.imread(info['img_path'], channel_order='rgb')
        with torch.no_grad():
            sample = model.test_step(pseudo_collate([dataset[index]]))[0]
        truth = _truth(info, names, image.shape[:2])
        predicted = _predicted(sample.pred_instances, names, truth)
        panels.append(Panel(image, truth, predicted))
    return panels


def _truth(info: dict, names: Sequence[str], shape: Tuple[int,
                                                          int]) -> Objects:
    """Return the annotated objects of one image."""
    from pycocotools import mask as mask_utils
    instances = info['instances']
    masks = [
        mask_utils.decode(
            mask_utils.merge(mask_utils.frPyObjects(item['mask'], *shape)))
        for item in instances
    ]
    labels = [item['bbox_label'] for item in instances]
    return Objects(
        np.reshape([item['bbox'] for item in instances], (-1, 4)),
        np.reshape(masks, (-1, *shape)).astype(bool), np.array(labels, int),
        [names[label] for label in labels], np.ones(len(labels), bool))


def _predicted(instances: object, names: Sequence[str],
               truth: Objects) -> Objects:
    """Return the predicted objects that are worth drawing."""
    kept = instances[instances.scores >= SCORE_THRESHOLD].cpu()
    kept = kept[torch.argsort(kept.scores, descending=True)]
    overlaps = _overlaps(kept.bboxes.numpy(), kept.bboxes.numpy())
    best = []
    for index in range(len(kept)):
        if (overlaps[index, best] < MATCH_OVERLAP).all():
            best.append(index)
    kept = kept[torch.tensor(best, dtype=torch.long)]
    boxes, labels = kept.bboxes.numpy(), kept.labels.numpy()
    hits = ((_overlaps(boxes, truth.boxes) >= MATCH_OVERLAP)
            & (labels[:, None] == truth.labels))
    return Objects(boxes,
                   kept.masks.numpy().astype(bool), labels, [
                       f'{names[label]} {score:.2f}'
                       for label, score in zip(
                           kept.labels, kept.scores, strict=True)
                   ], hits.any(axis=1))


def _overlaps(first: ndarray, second: ndarray) -> ndarray:
    """Return the intersection over union of boxes, (N, 4), (M, 4): (N, M)."""
    return box_iou(*(torch.from_numpy(boxes).double()
                     for boxes in (first, second))).numpy()


def draw_predictions(panels: Sequence[Panel], out_file: str) -> None:
    """Draw panels, two to a row, each the truth beside the prediction.

    Predictions of the wrong class or place have another colour.

    Args:
        panels (Sequence[Panel]): What to draw.
        out_file (str): PNG to write.
    """
    columns = 2 * min(2, len(panels))
    rows = -(-2 * len(panels) // columns)
    with drawing(out_file, rows, columns, PANEL_INCHES, PANEL_INCHES * 1.16,
                 photos=True) as (_, axes):
        for axis in axes.flat:
            axis.set_axis_off()
        for panel, (left, right) in zip(
                panels, axes.reshape(-1, 2), strict=False):
            _draw_objects(left, panel.image, panel.truth, 'ground truth')
            _draw_objects(right, panel.image, panel.predicted,
                          'prediction (orange: wrong)')


def _draw_objects(axis: object, image: ndarray, objects: Objects,
                  title: str) -> None:
    """Draw one image with boxes, masks and captions on an axis."""
    from matplotlib.patches import Rectangle
    height, width = image.shape[:2]
    axis.imshow(image, interpolation='nearest')
    axis.set_title(title, fontsize=9, pad=3)
    for box, mask, caption, right in zip(
            objects.boxes, objects.masks, objects.captions, objects.right,
            strict=True):
        colour = RIGHT_COLOUR if right else WRONG_COLOUR
        # A light fill: the colour of a digit is a part of its class.
        overlay = np.zeros((*mask.shape, 4))
        overlay[mask] = MASK_FILL
        axis.imshow(overlay, interpolation='nearest')
        if mask.any():
            axis.contour(mask, levels=[0.5], colors=colour, linewidths=0.8)
        x1, y1, x2, y2 = box
        axis.add_patch(
            Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False,
                      edgecolor=colour, linewidth=1.5))
        axis.text(
            min(x1, 0.72 * width), y1 - 1.5, caption, va='bottom', fontsize=8,
            color=colour,
            bbox=dict(facecolor='black', alpha=0.7, pad=1, linewidth=0))
    # Room for the caption of an object at the upper edge.
    axis.set_ylim(height - 0.5, -0.5 - CAPTION_MARGIN * height)
