"""Match detections image by image and merge what the ranks counted."""
import logging
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.utils import digit_version
from torch import Tensor

from apa_mm.data.annotations import Category
from apa_mm.data.ground_truth import GroundTruth
from apa_mm.utils import HAS_HOTCOCO
from .detection_table import DetectionTable, is_outside
from .eval_summary import AREAS, PrecisionGrid
from .mask_rle import boundary_ious, encode_masks, mask_areas, mask_size

if HAS_HOTCOCO:
    import hotcoco

INSTALL = "pip install 'hotcoco>=1.3,<2'"
#: lvis-api keeps this many detections of an image, over all classes.
LVIS_MAX_DETS = 300
#: Images per call when those that no rank has seen are added.
CHUNK = 512


def need_hotcoco() -> None:
    """Raise ImportError unless hotcoco can be used."""
    found = 'is not installed'
    if HAS_HOTCOCO:
        found = f'{hotcoco.__version__} is installed'
        if (1, 3) <= digit_version(hotcoco.__version__)[:2] < (2, 0):
            return
    raise ImportError(f'detection metrics need hotcoco >=1.3,<2, but hotcoco '
                      f'{found}; {INSTALL}')


#: What mmdet calls the fields of Detections.
_KEYS = ('bboxes', 'scores', 'labels', 'masks', 'mask_scores')


class Detections(NamedTuple):
    """Predictions of one image, N boxes in the frame of the original image.

    ``boxes`` are corners xyxy in pixels, (N, 4); ``masks`` a tensor or array
    of binary masks (N, H, W), or N run-length codes; the others are (N, ).
    """
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Any = None
    mask_scores: Optional[np.ndarray] = None

    @classmethod
    def from_sample(cls, data_sample: dict,
                    need_masks: bool) -> 'Detections':
        """Read and check the ``pred_instances`` of a data sample."""
        pred = data_sample['pred_instances']
        image = f"the predictions of image id {data_sample['img_id']!r}"
        boxes, scores, labels = (_numpy(pred[key]) for key in _KEYS[:3])
        mask_scores = pred.get('mask_scores')
        if mask_scores is not None:
            mask_scores = _numpy(mask_scores)
        if need_masks and 'masks' not in pred:
            raise ValueError(f"metric 'segm' needs masks, but {image} have "
                             "none; use metric='bbox' or a model with a mask "
                             'head')
        # mmdet's RPN gives an image without proposals labels of floats.
        if not (labels == (whole := labels.astype(np.int64))).all():
            raise ValueError(f'labels must be whole numbers, but {image} have '
                             f'{labels[labels != whole][0]}')
        for values in (boxes, scores, mask_scores):
            if values is not None and not np.isfinite(values).all():
                raise ValueError(
                    f'scores and boxes must be finite, but {image} hold NaN '
                    'or infinity, as a diverged model gives; lower the '
                    'learning rate or clip gradients')
        return cls(boxes.reshape(-1, 4), scores, whole, pred.get('masks'),
                   mask_scores)

    def as_result(self, image_id: int) -> dict:
        """Return them as mmdet's own methods read a result."""
        found = zip(_KEYS, self, strict=True)
        return {'img_id': image_id,
                **{key: value for key, value in found if value is not None}}

    @classmethod
    def from_result(cls, result: dict) -> 'Detections':
        """Read what :meth:`as_result` returned."""
        return cls(*map(result.get, _KEYS))


def _numpy(values: Any) -> np.ndarray:
    """Return numbers of a tensor or array in host memory."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        if values.dtype is torch.bfloat16:  # numpy has no such type
            values = values.float()
    return np.asarray(values)


def to_xywh(boxes: np.ndarray) -> np.ndarray:
    """Turn corners into x, y, width, height in float64, as pycocotools."""
    boxes = boxes.astype(np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


class StreamingMatcher:
    """Evaluate one image at a time with hotcoco's ``StreamingEval``.

    An image leaves only counts behind. One that comes again replaces its
    earlier self, on other ranks too.

    ``categories`` are in label order, ``iou_types`` of 'bbox' and 'segm',
    ``max_dets`` limits per image and class, ascending, or per image in LVIS.
    The rest is as of :class:`~apa_mm.det.lvis_metric.LVISMetric`.
    """

    def __init__(self, truth: GroundTruth, categories: Sequence[Category],
                 iou_types: Sequence[str], max_dets: Sequence[int],
                 iou_thrs: Sequence[float], segm_area: str,
                 class_limit: Optional[int] = None,
                 dilation_ratio: Optional[float] = None) -> None:
        self.truth = truth
        self.num_classes = len(categories)
        self.iou_thrs = iou_thrs
        self.segm_area = segm_area
        self.class_limit = class_limit
        self.dilation_ratio = dilation_ratio
        self.seen: set = set()
        classes = [dict(id=k, name=item.name, frequency=item.frequency or 'f')
                   for k, item in enumerate(categories)]
        self._streams = {}
        for iou_type in iou_types:
            params = hotcoco.Params(iou_type)
            params.iou_thrs = [float(threshold) for threshold in iou_thrs]
            params.max_dets = list(max_dets)
            self._streams[iou_type] = hotcoco.StreamingEval(
                classes, iou_type, lvis_style=truth.lvis_style, params=params)
        kinds = ([*iou_types] * bool(class_limit) +
                 ['segm_boundary'] * bool(dilation_ratio))
        self._tables = {kind: DetectionTable(iou_thrs, LVIS_MAX_DETS)
                        for kind in kinds}

    def update(self, image_id: int, found: Detections) -> None:
        """Match the detections of one image, which the truth must have."""
        image = self.truth.image(image_id)
        entries = self.truth.annotations(image_id)
        # (N, 7): image, x, y, w, h, score, label, as hotcoco reads them.
        rows = np.column_stack(
            [np.full(len(found.scores), image['id']), to_xywh(found.boxes),
             found.scores, found.labels])
        if 'bbox' in self._streams:
            self._update_boxes(image, entries, rows)
        if 'segm' in self._streams:
            self._check_size(image_id, image, found)
            self._update_masks(image, entries, rows, found)
        self.seen.add(image_id)

    def _admit(self, image: dict, entries: List[dict], rows: np.ndarray,
               areas: np.ndarray) -> np.ndarray:
        """Return the indices of the detections that count.

        lvis-api first keeps the 300 best, equal scores in their order, then
        drops what has no area, or a category that the image neither has nor
        is known not to have.
        """
        if not self.truth.lvis_style:
            return np.arange(len(rows))
        keep = np.argsort(-rows[:, 5], kind='stable')[:LVIS_MAX_DETS]
        known = [*image['neg_category_ids'],
                 *(entry['category_id'] for entry in entries)]
        return keep[(areas[keep] > 0) & np.isin(rows[keep, 6], known)]

    def _update_boxes(self, image: dict, entries: List[dict],
                      rows: np.ndarray) -> None:
        areas = rows[:, 3] * rows[:, 4]
        if 'bbox' in self._tables:
            boxes = np.array([entry['bbox'] for entry in entries])
            self._tables['bbox'].update(
                image, entries, rows, areas,
                lambda found, there: hotcoco.mask.bbox_iou(
                    rows[found, 1:5], boxes[there], [0] * len(there)))
        # Polygons would cost time.
        plain = [{k: v for k, v in entry.items() if k != 'segmentation'}
                 for entry in entries]
        keep = self._admit(image, entries, rows, areas)
        self._streams['bbox'].update([image], plain, rows[keep])

    def _update_masks(self, image: dict, entries: List[dict],
                      rows: np.ndarray, found: Detections) -> None:
        stream = self._streams['segm']
        if found.mask_scores is not None:
            rows[:, 5] = found.mask_scores
        by_box = self.segm_area == 'box'
        areas = None if by_box else mask_areas(found.masks)
        sizes = rows[:, 3] * rows[:, 4] if by_box else areas
        keep = self._admit(image, entries, rows, sizes)
        read = np.isin(rows[:, 6], [entry['category_id'] for entry in entries])
        codes = encode_masks(found.masks, read, areas)
        if self._tables:
            self._judge_masks(image, entries, rows, sizes, codes)
        codes = [codes[i] for i in keep]
        if by_box:
            stream.update([image], entries, rows[keep], segmentation=codes)
            return
        # Without a box hotcoco and pycocotools measure the mask.
        stream.update([image], entries, [
            dict(image_id=image['id'], category_id=int(row[6]), score=row[5],
                 segmentation=code)
            for row, code in zip(rows[keep].tolist(), codes, strict=True)])

    def _judge_masks(self, image: dict, entries: List[dict], rows: np.ndarray,
                     areas: np.ndarray, codes: List[dict]) -> None:
        shapes = [entry['segmentation'] for entry in entries]
        shapes = [shape if isinstance(shape, dict) else hotcoco.mask.merge(
            hotcoco.mask.fr_py_objects(shape, image['height'], image['width']))
            for shape in shapes]
        ratios = dict(segm=None, segm_boundary=self.dilation_ratio)
        for kind in ratios.keys() & self._tables.keys():
            self._tables[kind].update(
                image, entries, rows, areas,
                lambda found, there, ratio=ratios[kind]: boundary_ious(
                    [codes[i] for i in found], [shapes[i] for i in there],
                    min(self.iou_thrs), ratio))

    def _check_size(self, image_id: int, image: dict,
                    found: Detections) -> None:
        size = mask_size(found.masks)
        if size not in (None, (image['height'], image['width'])):
            raise ValueError(
                f"masks of image id {image_id} are {size[0]} x {size[1]} "
                f"pixels, but '{self.truth.path}' says {image['height']} x "
                f"{image['width']} (height x width); test with rescale=True "
                'and the images that the file describes')

    def state(self) -> Tuple[List[int], Dict[str, bytes], Dict[str, dict]]:
        """Return what another rank needs: ids seen, states per IoU type."""
        states = {kind: s.to_bytes() for kind, s in self._streams.items()}
        tables = {kind: table.images for kind, table in self._tables.items()}
        return sorted(self.seen), states, tables

    def merge(self, parts: Sequence[tuple]) -> None:
        """Take in what every rank's :meth:`state` returned, own included."""
        stream = hotcoco.StreamingEval
        for iou_type in self._streams:
            self._streams[iou_type] = stream.merge(
                [stream.from_bytes(states.pop(iou_type))
                 for _, states, _ in parts])
        for kind, table in self._tables.items():
            for *_, images in parts:
                table.images.update(images.pop(kind))
        self.seen = {image_id for seen, *_ in parts for image_id in seen}

    def finish(self) -> Dict[str, PrecisionGrid]:
        """Count unseen images as missed and return the grid per IoU type."""
        unseen = [i for i in self.truth.images if i not in self.seen]
        if unseen:
            print_log(
                f'{len(unseen)} of {len(self.truth.images)} images of '
                f"'{self.truth.path}' were not seen: their objects count as "
                'missed', 'current', logging.WARNING)
        for start in range(0, len(unseen), CHUNK):
            chunk = unseen[start:start + CHUNK]
            images = [self.truth.image(i) for i in chunk]
            entries = [e for i in chunk for e in self.truth.annotations(i)]
            for stream in self._streams.values():
                stream.update(images, entries, np.zeros((0, 7)))
        print_log(f'Accumulating {list(self._streams)} over '
                  f'{len(self.truth.images)} images', 'current')
        grids = {iou_type: _accumulate(self._streams.pop(iou_type))
                 for iou_type in list(self._streams)}
        totals = np.zeros((self.num_classes, len(AREAS)), dtype=np.int64)
        for i in self.truth.images if self._tables else ():
            for entry in self.truth.annotations(i):
                totals[entry['category_id']] += ~is_outside(entry['area'])[0]
        for kind, table in self._tables.items():
            if kind == 'segm_boundary':
                grids[kind] = table.grid(totals)
            if self.class_limit:
                grids[f'{kind}_fixed'] = table.grid(totals, self.class_limit)
        return grids


def _accumulate(stream: Any) -> PrecisionGrid:
    evaluator = stream.finalize()
    evaluator.accumulate()
    arrays, params = evaluator.eval, evaluator.params
    return PrecisionGrid(arrays['precision'], arrays['recall'],
                         np.array(params.iou_thrs), list(params.max_dets))
