"""Judged detections of a whole data set, for limits per class."""
from typing import Callable, Dict, List, Optional, Sequence, Union

import numpy as np
from mmengine.logging import print_log

from .eval_summary import PrecisionGrid

#: Smallest and largest area of 'all', 'small', 'medium' and 'large', (4, ).
LOW = np.array([0, 0, 32**2, 96**2], dtype=float)
HIGH = np.array([1e5**2, 32**2, 96**2, 1e5**2], dtype=float)
RECALLS = np.linspace(0, 1, 101)


def is_outside(areas: Union[float, Sequence[float]]) -> np.ndarray:
    """Return whether areas (N, ) are outside of each area range, (N, 4)."""
    areas = np.asarray(areas, dtype=float).reshape(-1, 1)
    return (areas < LOW) | (areas > HIGH)


class DetectionTable:
    """Detections by any IoU, judged image by image as lvis-api does.

    hotcoco has no boundary IoU and cuts each image at 300 detections. As
    matching goes by falling score, a cut at a score changes no match above
    it: so all detections are judged when they come, 23 bytes each, and the
    limits are applied at the end.

    Without a limit per class the best ``image_limit`` of an image count;
    there are T IoU thresholds.
    """

    def __init__(self, iou_thrs: Sequence[float], image_limit: int) -> None:
        self.iou_thrs = np.array(iou_thrs, dtype=float)
        self.image_limit = image_limit
        self._verdicts = len(LOW), len(self.iou_thrs)
        self._bits = len(LOW) * len(self.iou_thrs)
        size = (-(-self._bits // 8), )
        self._dtype = np.dtype([('score', 'f8'), ('label', 'i4'),
                                ('within', '?'), ('matched', 'u1', size),
                                ('ignored', 'u1', size)])
        #: Judged detections of each image number, best first.
        self.images: Dict[int, np.ndarray] = {}

    def update(self, image: dict, entries: List[dict], rows: np.ndarray,
               areas: np.ndarray, ious: Callable) -> None:
        """Judge the N detections of one image.

        Args:
            image (dict): Its number and its two lists of labels.
            entries (list[dict]): Its objects, with label and area.
            rows (np.ndarray): (N, 7) rows as hotcoco reads them.
            areas (np.ndarray): Areas of the detections in pixels, (N, ).
            ious (Callable): From the indices of D detections and of G objects
                to their IoUs, (D, G).
        """
        present = np.array([entry['category_id'] for entry in entries])
        spared = is_outside([entry['area'] for entry in entries]).T
        order = np.argsort(-rows[:, 5], kind='stable')
        labels, areas = rows[order, 6], areas[order]
        known = (areas > 0) & np.isin(
            labels, [*present, *image['neg_category_ids']])
        unsure = ~known | np.isin(labels, image['not_exhaustive_category_ids'])
        matched = np.zeros((len(rows), *self._verdicts), dtype=bool)
        ignored = matched | (unsure[:, None] | is_outside(areas))[..., None]
        for label in np.unique(present):
            found = np.flatnonzero(known & (labels == label))
            if len(found):
                there = np.flatnonzero(present == label)
                self._match(ious(order[found], there), spared[:, there], found,
                            matched, ignored)
        table = np.zeros(len(rows), dtype=self._dtype)
        table['score'], table['label'] = rows[order, 5], labels
        table['within'][:self.image_limit] = True
        for name, verdicts in (('matched', matched), ('ignored', ignored)):
            table[name] = np.packbits(
                verdicts.reshape(len(rows), self._bits), axis=1)
        self.images[image['id']] = table

    def _match(self, ious: np.ndarray, spared: np.ndarray, found: np.ndarray,
               matched: np.ndarray, ignored: np.ndarray) -> None:
        """Match the detections ``found`` with the G objects of their class.

        ``spared`` (4, G) are the objects that an area range leaves out: a
        detection that gets one is ignored. Objects that count go first, then
        the largest IoU, of equal ones the last.
        """
        thrs = np.minimum(self.iou_thrs, 1 - 1e-10)[:, None]
        free = np.ones((*self._verdicts, ious.shape[1]), dtype=bool)
        first = (~spared * ious.shape[1])[:, None]
        rank = ious.argsort(1, kind='stable').argsort(1)
        for d in np.flatnonzero((ious >= thrs.min()).any(1)):
            choice = np.where(free & (ious[d] >= thrs), rank[d] + first, -1)
            area, thr = np.nonzero(choice.max(2) >= 0)
            best = choice.argmax(2)[area, thr]
            free[area, thr, best] = False
            matched[found[d], area, thr] = True
            ignored[found[d], area, thr] = spared[area, best]

    def grid(self, totals: np.ndarray,
             class_limit: Optional[int] = None) -> PrecisionGrid:
        """Accumulate, with a limit per class in place of that per image.

        Of equal scores those of the image with the lower id come first.
        ``totals`` are the objects of each class and area range, (K, 4);
        ignored detections are within the limit too.
        """
        parts = [self.images[i] for i in sorted(self.images)]
        table = np.concatenate([np.zeros(0, self._dtype), *parts])
        if class_limit is None:
            table = table[table['within']]
        order = np.lexsort((-table['score'], table['label']))
        sizes = np.bincount(table['label'], minlength=len(totals))
        ends = sizes.cumsum()
        if class_limit is not None:
            few = sizes[totals[:, 0] > 0] < class_limit
            print_log(
                f'{few.sum()} of {few.size} classes have fewer than '
                f'{class_limit} detections; where the detections kept per '
                'image (max_per_img of test_cfg) are why, AP is too low',
                'current')
        shape = (len(self.iou_thrs), *totals.shape, 1)
        recall = -np.ones(shape)
        precision = -np.ones((shape[0], len(RECALLS), *shape[1:]))
        for k in np.flatnonzero(totals.any(1)):
            part = table[order[ends[k] - sizes[k]:ends[k]][:class_limit]]
            matched, ignored = (
                np.unpackbits(part[name], axis=1, count=self._bits).astype(
                    bool).reshape(len(part), *self._verdicts)
                for name in ('matched', 'ignored'))
            for a in np.flatnonzero(totals[k]):
                right = (matched[:, a] & ~ignored[:, a]).cumsum(0)
                wrong = (~matched[:, a] & ~ignored[:, a]).cumsum(0)
                reached = right / totals[k, a]
                recall[:, k, a, 0] = reached[-1] if len(part) else 0
                precision[:, :, k, a, 0] = _at_recalls(
                    right / (right + wrong + np.spacing(1)), reached)
        return PrecisionGrid(precision, recall, self.iou_thrs,
                             [class_limit or self.image_limit])


def _at_recalls(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Return the best precision from each recall level on, (T, 101)."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # A level that is never reached has precision 0.
    best = np.vstack([best, np.zeros(best.shape[1])])
    return np.stack([values[np.searchsorted(reached, RECALLS)]
                     for values, reached in zip(best.T, recall.T,
                                                strict=True)])
