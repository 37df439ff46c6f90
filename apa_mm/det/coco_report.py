"""COCO's numbers under mmdet's names, from a precision grid."""
import re
from typing import Dict, List, Optional, Sequence, Tuple

from mmengine.logging import print_log

from apa_mm.data.annotations import Category
from apa_mm.utils.tables import text_table
from .eval_summary import (PrecisionGrid, average_precision, average_recall,
                           rounded)

#: Threshold and area range of each average precision that mmdet reports.
AP_ITEMS = dict(
    mAP=(None, 'all'), mAP_50=(0.5, 'all'), mAP_75=(0.75, 'all'),
    mAP_s=(None, 'small'), mAP_m=(None, 'medium'), mAP_l=(None, 'large'))
AR_ITEM = re.compile(r'AR(?:_([sml]))?@([1-9]\d*)')
AREA_OF_LETTER = {None: 'all', 's': 'small', 'm': 'medium', 'l': 'large'}
#: pycocotools reads the first number of its summary at this limit.
COCO_MAX_DETS = 100


def ap_limits(proposal_nums: Sequence[int], use_mp_eval: bool,
              max_dets: Optional[int]) -> Tuple[int, int, int]:
    """Return the limits on detections for mAP, other AP and classwise values.

    pycocotools reads mAP at 100 and the other five at the third limit; mmdet
    reads classwise values at the last one, and with its multi-process
    evaluator everything. Without such a limit the last counts; ``max_dets``
    replaces all.

    Raises:
        ValueError: If a limit is not a positive whole number.
    """
    given = list(proposal_nums) if max_dets is None else [max_dets]
    if not given or any(type(n) is not int or n < 1 for n in given):
        name = 'proposal_nums' if max_dets is None else 'max_dets'
        raise ValueError(f'{name} must hold positive whole numbers, but got '
                         f'{given}; mmdet has (100, 300, 1000), V3Det [300]')
    nums = sorted(given)
    last = nums[-1]
    if use_mp_eval or max_dets is not None:
        return last, last, last
    others = nums[2] if len(nums) > 2 else last
    return COCO_MAX_DETS if COCO_MAX_DETS in nums else others, others, last


def detection_limits(limits: Sequence[int],
                     items: Optional[Sequence[str]]) -> List[int]:
    """Return every limit that a reported number needs, ascending.

    Raises:
        KeyError: If an item is neither an AP nor a recall.
    """
    needed = set(limits)
    for item in items or ():
        recall = AR_ITEM.fullmatch(item)
        if recall:
            needed.add(int(recall.group(2)))
        elif item not in AP_ITEMS:
            raise KeyError(
                f"metric_items must be of {list(AP_ITEMS)} and 'AR@n', "
                f"'AR_s@n', 'AR_m@n', 'AR_l@n', but got {item!r}")
    return sorted(needed)


def coco_report(
        metric: str, grid: PrecisionGrid, limits: Tuple[int, int, int],
        items: Optional[Sequence[str]] = None,
        classwise: Optional[Sequence[Category]] = None) -> Dict[str, float]:
    """Return the numbers of one metric, rounded, and log them as mmdet does.

    ``limits`` are from :func:`ap_limits`, ``classwise`` the categories to
    report one by one, in the order of the labels.
    """
    report: Dict[str, float] = {}
    if classwise:
        rows = [[category.name] + [
            rounded(_precision(grid, item, limits[2], [label], float('nan')))
            for item in AP_ITEMS
        ] for label, category in enumerate(classwise)]
        report.update((f'{row[0]}_precision', row[1]) for row in rows)
        print_log('\n' + text_table(['category', *AP_ITEMS], rows), 'current')
    values = {item: _precision(grid, item, limits[0 if item == 'mAP' else 1])
              for item in AP_ITEMS}
    for item in items or AP_ITEMS:
        value = values[item] if item in AP_ITEMS else _recall(grid, item)
        report[f'{metric}_{item}'] = rounded(value)
    print_log(f'{metric}_mAP_copypaste: ' +
              ' '.join(f'{value:.3f}' for value in values.values()), 'current')
    return report


def _precision(grid: PrecisionGrid, item: str, limit: int,
               columns: Optional[List[int]] = None,
               missing: float = -1.0) -> float:
    threshold, area = AP_ITEMS[item]
    return average_precision(grid, iou_thr=threshold, area=area, max_det=limit,
                             columns=columns, missing=missing)


def _recall(grid: PrecisionGrid, item: str) -> float:
    letter, limit = AR_ITEM.fullmatch(item).groups()
    return average_recall(grid, area=AREA_OF_LETTER[letter],
                          max_det=int(limit))
