"""Turn precision and recall grids into the numbers that papers report."""
from typing import List, NamedTuple, Optional, Sequence

import numpy as np

AREAS = ('all', 'small', 'medium', 'large')


class PrecisionGrid(NamedTuple):
    """What COCO and LVIS evaluation accumulate; -1 marks "no ground truth".

    ``precision`` is (T, R, K, A, M) and ``recall`` (T, K, A, M), in [0, 1]:
    T IoU thresholds ``iou_thrs``, R = 101 recall levels, K categories in the
    order of the labels, the areas A of ``AREAS``, M limits ``max_dets``.
    """
    precision: np.ndarray
    recall: np.ndarray
    iou_thrs: np.ndarray
    max_dets: List[int]

    def at(self, values: np.ndarray, area: str,
           max_det: Optional[int]) -> np.ndarray:
        """Return (T, R, K) or (T, K) at one area range and limit."""
        limit = -1 if max_det is None else self.max_dets.index(max_det)
        return values[..., AREAS.index(area), limit]


def average_precision(
        grid: PrecisionGrid, *, iou_thr: Optional[float] = None,
        area: str = 'all', max_det: Optional[int] = None,
        columns: Optional[Sequence[int]] = None,
        missing: float = -1.0) -> float:
    """Average precision over thresholds, recall levels and categories.

    At one IoU threshold, limit on detections (the last by default) or some
    columns of categories if given; ``missing`` if there is no ground truth.
    """
    values = grid.at(grid.precision, area, max_det)
    if columns is not None:
        values = values[:, :, list(columns)]
    if iou_thr is not None:
        values = values[np.isclose(grid.iou_thrs, iou_thr, atol=1e-9)]
    return _mean(values, missing)


def average_recall(grid: PrecisionGrid, *, area: str = 'all',
                   max_det: Optional[int] = None) -> float:
    """Recall averaged over thresholds and categories, -1 without objects."""
    return _mean(grid.at(grid.recall, area, max_det), -1.0)


def _mean(values: np.ndarray, missing: float) -> float:
    values = values[values > -1]
    return float(np.mean(values)) if values.size else missing


def rounded(value: float) -> float:
    """Round to 3 digits with numpy, whose ties differ from Python's."""
    return float(np.round(value, 3))
