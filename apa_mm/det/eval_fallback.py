"""Exact but slow evaluators for where hotcoco is not installed."""
import contextlib
import io
import types
from importlib.util import find_spec
from typing import Any, List, Optional, Sequence

import numpy as np
from mmengine.logging import MMLogger

from apa_mm.utils import HAS_HOTCOCO
from apa_mm.utils.checks import check_choice
from .eval_summary import PrecisionGrid

__all__ = ['check_cells', 'coco_grid', 'lvis_grid', 'resolve_backend']

INSTALL = "pip install 'hotcoco>=1.3,<2'"
#: pycocotools and lvis-api hold about 0.7 KB per image and category.
BYTES_PER_CELL = 700
MAX_CELLS = 10_000_000


def resolve_backend(requested: str, fallback: str) -> str:
    """Return the backend to use: 'hotcoco' or ``fallback``.

    Args:
        requested (str): 'auto', 'hotcoco' or ``fallback``. 'auto' takes
            hotcoco and else, with one warning, the fallback.
        fallback (str): 'pycocotools' or 'lvis'.

    Raises:
        ValueError: If ``requested`` is something else.
        RuntimeError: If hotcoco is asked for, or needed, and unusable.
    """
    check_choice('backend', requested, ('auto', 'hotcoco', fallback))
    if requested == fallback:
        _need(fallback)
        return fallback
    problem = _hotcoco_problem()
    if problem is None:
        return 'hotcoco'
    if requested == 'hotcoco':
        raise RuntimeError(
            f"backend='hotcoco' cannot be used, since {problem}; {INSTALL}")
    _need(fallback)
    MMLogger.get_current_instance().warning(
        f'Evaluating with the slow backend {fallback!r}, since {problem}; '
        f'{INSTALL}')
    return fallback


def _hotcoco_problem() -> Optional[str]:
    """Say why hotcoco cannot be used, None if it can."""
    if not HAS_HOTCOCO:
        return 'hotcoco is not installed'
    import hotcoco
    version = tuple(int(n) for n in hotcoco.__version__.split('.')[:2])
    if not (1, 3) <= version < (2, 0):
        return f'hotcoco {hotcoco.__version__} is not >=1.3,<2'
    return None


def _need(package: str) -> None:
    if find_spec(package) is None:
        raise RuntimeError(
            f'evaluation needs hotcoco or {package}, but neither is '
            f'installed; {INSTALL}')


def check_cells(num_images: int, num_categories: int, path: str,
                fallback: str) -> None:
    """Refuse an evaluation that the slow backend would not end.

    Raises:
        RuntimeError: If images times categories pass 10 million.
    """
    cells = num_images * num_categories
    if cells > MAX_CELLS:
        raise RuntimeError(
            f'{path} has {num_images} images and {num_categories} '
            f'categories, for which {fallback} needs about '
            f'{cells * BYTES_PER_CELL / 1e9:.0f} GB and hours; {INSTALL}, or '
            f"set backend='{fallback}' to do it all the same")


def coco_grid(ann_path: str, detections: List[dict], iou_type: str,
              segm_area: str, cat_ids: Sequence[int], max_dets: Sequence[int],
              iou_thrs: Sequence[float]) -> PrecisionGrid:
    """Evaluate COCO results with pycocotools.

    Args:
        ann_path (str): Local annotation file.
        detections (list[dict]): Results as in COCO's result files, with a
            box each. Changed in place.
        iou_type (str): 'bbox' or 'segm'.
        segm_area (str): 'box' or 'mask', see ``CocoMetric``.
        cat_ids (Sequence[int]): Evaluated categories.
        max_dets (Sequence[int]): Limits on detections, ascending.
        iou_thrs (Sequence[float]): IoU thresholds.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    _set_area_source(detections, iou_type, segm_area)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(ann_path)
        for entry in truth.dataset['annotations']:
            entry.setdefault('iscrowd', 0)
        if detections:
            found = truth.loadRes(detections)
        else:
            found = COCO()
            found.dataset = dict(truth.dataset, annotations=[])
            found.createIndex()
        evaluator = COCOeval(truth, found, iou_type)
        params = evaluator.params
        params.catIds = list(cat_ids)
        params.maxDets = list(max_dets)
        params.iouThrs = np.array(iou_thrs, dtype=np.float64)
        evaluator.evaluate()
        evaluator.accumulate()
    return PrecisionGrid(evaluator.eval['precision'],
                         evaluator.eval['recall'], list(params.catIds),
                         params.iouThrs, list(params.maxDets))


def lvis_grid(ann_path: str, detections: List[dict], iou_type: str,
              segm_area: str, iou_thrs: Sequence[float]) -> PrecisionGrid:
    """Evaluate LVIS results with lvis-api; arguments as for COCO."""
    from lvis import LVIS, LVISResults
    _set_area_source(detections, iou_type, segm_area)
    truth = LVIS(ann_path)
    if not detections:
        # lvis-api stumbles over an empty list and drops what has no area.
        image, category = next(iter(truth.imgs)), next(iter(truth.cats))
        detections = [
            dict(
                image_id=image,
                category_id=category,
                score=0.0,
                bbox=[0.0, 0.0, 0.0, 0.0])
        ]
    evaluator = _fixed_lvis_eval()(truth, LVISResults(truth, detections),
                                   iou_type)
    params = evaluator.params
    params.iou_thrs = np.array(iou_thrs, dtype=np.float64)
    evaluator.evaluate()
    evaluator.accumulate()
    return PrecisionGrid(evaluator.eval['precision'][..., None],
                         evaluator.eval['recall'][..., None],
                         list(params.cat_ids), params.iou_thrs,
                         [params.max_dets])


def _set_area_source(detections: List[dict], iou_type: str,
                     segm_area: str) -> None:
    """Drop the boxes where areas are to come from the masks."""
    if iou_type == 'segm' and segm_area == 'mask':
        for entry in detections:
            entry.pop('bbox', None)


class _NumpyWithFloat:
    """numpy as lvis 0.5.3 knows it: numpy 1.24 removed ``np.float``."""
    float = float

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def _fixed_lvis_eval() -> type:
    """Return ``LVISEval`` with an ``accumulate`` that new numpy can run.

    The method is rebound to globals of its own, in which ``np`` has
    ``float``; neither lvis nor numpy is changed.
    """
    from lvis import LVISEval
    method = LVISEval.accumulate
    accumulate = types.FunctionType(
        method.__code__, dict(method.__globals__, np=_NumpyWithFloat()),
        method.__name__)
    return type('FixedLVISEval', (LVISEval, ), dict(accumulate=accumulate))
