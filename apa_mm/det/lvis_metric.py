"""LVIS evaluation that runs on today's numpy and streams."""
from typing import Dict, List, Optional

from mmengine.logging import print_log

from apa_mm.registry import METRICS
from apa_mm.utils.tables import text_table
from .coco_metric import CocoMetric
from .eval_summary import (PrecisionGrid, average_precision, average_recall,
                           rounded)
from .streaming import LVIS_MAX_DETS

#: Threshold, area range and frequency group of each of LVIS's precisions.
AP_ITEMS = dict(
    AP=(None, 'all', None), AP50=(0.5, 'all', None), AP75=(0.75, 'all', None),
    APs=(None, 'small', None), APm=(None, 'medium', None),
    APl=(None, 'large', None), APr=(None, 'all', 'r'), APc=(None, 'all', 'c'),
    APf=(None, 'all', 'f'))
AR_ITEMS = {'AR@300': 'all', 'ARs@300': 'small', 'ARm@300': 'medium',
            'ARl@300': 'large'}


@METRICS.register_module()
class LVISMetric(CocoMetric):
    """mmdet's ``LVISMetric`` with matching in :meth:`process`.

    Drop-in for mmdet's class, same arguments, keys and rounding, without
    lvis-api, whose release fails with numpy >= 1.24. Streams as
    :class:`CocoMetric` does. As LVIS is federated, a detection counts as
    wrong only where the image is known not to hold its category; the 300
    best detections of an image count.

    Numbers equal lvis-api's: detections and annotations without area are
    dropped, ``ignore`` is honoured and ``iscrowd`` is not, and masks are
    sized by their boxes. Exceptions are those of :class:`CocoMetric`, and
    that ``iou_thrs`` is honoured.

    Args:
        ann_file (str): LVIS v1 annotation file, with ``frequency`` in its
            categories and ``neg_category_ids`` and
            ``not_exhaustive_category_ids`` in its images.
        segm_area (str): Whether a detected mask is small, medium or large by
            the area of its 'box' (lvis-api as mmdet feeds it) or of its
            'mask' (as detectron2 does). AP is the same.
        max_dets_per_class (int, optional): Also report fixed AP (Dave et al.,
            2021) under 'bbox_fixed_AP', 'segm_fixed_AP' and so on: the best
            detections of each class over the whole set count, 10000 in the
            LVIS challenge 2021. What ``max_per_img`` (300) and ``score_thr``
            of ``model.test_cfg.rcnn`` drop never comes here: raise the one
            (such as to 1000) and lower the other. Takes 23 bytes per
            detection and IoU type, and twice that where ranks are merged.
        dilation_ratio (float, optional): Also report boundary AP (Cheng et
            al., 2021) under 'segm_boundary_AP' and so on, with the smaller of
            mask IoU and boundary IoU; the boundary is this many image
            diagonals wide, 0.02 for LVIS. With ``max_dets_per_class`` also
            'segm_boundary_fixed_AP', the measure of that challenge.
        **kwargs: Arguments of mmdet's class. ``metric`` 'proposal' is the
            recall of the 300 best boxes per image, ``proposal_nums`` has no
            effect, as in mmdet; ``metric_items`` are of ``AP_ITEMS`` (the
            default) and ``AR_ITEMS``.

    Raises as :class:`CocoMetric` does.
    """
    default_prefix: Optional[str] = 'lvis'
    lvis_style = True

    def __init__(self, ann_file: Optional[str] = None, *args,
                 segm_area: str = 'box',
                 max_dets_per_class: Optional[int] = None,
                 dilation_ratio: Optional[float] = None, **kwargs) -> None:
        if ann_file is None:
            raise ValueError(
                'LVISMetric needs ann_file, but got None: data samples hold '
                'neither frequencies nor negative categories; set ann_file '
                'to the LVIS annotation file of the evaluated dataset')
        without_effect = {'sort_categories', 'use_mp_eval', 'max_dets'}
        if not without_effect.isdisjoint(kwargs):
            raise TypeError(f'LVISMetric takes none of {without_effect}: LVIS '
                            'has its own order and limit; remove them')
        if max_dets_per_class is not None and (
                type(max_dets_per_class) is not int or max_dets_per_class < 1):
            raise ValueError('max_dets_per_class must be a positive whole '
                             f'number, but got {max_dets_per_class!r}; LVIS '
                             'has 10000')
        self.max_dets_per_class = max_dets_per_class
        self.dilation_ratio = dilation_ratio
        super().__init__(ann_file, *args, segm_area=segm_area, **kwargs)

    def _detection_limits(self) -> List[int]:
        for item in self.metric_items or ():
            if item not in AP_ITEMS and item not in AR_ITEMS:
                raise KeyError(f'metric_items must be of {list(AP_ITEMS)} and '
                               f'{list(AR_ITEMS)}, but got {item!r}')
        ratio = self.dilation_ratio
        if ratio is not None and not (0 < ratio <= 1
                                      and 'segm' in self.metrics):
            raise ValueError(
                "dilation_ratio must be in (0, 1] and needs metric 'segm', "
                f'but got {ratio} and {self.metrics}; LVIS has 0.02')
        return [LVIS_MAX_DETS]

    def _iou_types(self) -> List[str]:
        return (['bbox'] * bool({'bbox', 'proposal'} & {*self.metrics}) +
                ['segm'] * ('segm' in self.metrics))

    def _report(self, metric: str, grids: Dict[str, PrecisionGrid],
                results: list) -> Dict[str, float]:
        if metric == 'proposal':
            values = self._values(metric, grids['bbox'])
            items = self.metric_items or AR_ITEMS
            return {k: _formatted(values[k]) for k in values if k in items}
        report = self._classwise(grids[metric]) if self.classwise else {}
        for kind in grids:
            if kind == metric or kind.startswith(f'{metric}_'):
                # Recall at 300 says nothing where the limit is another.
                items = [k for k in self.metric_items or AP_ITEMS
                         if kind == metric or k in AP_ITEMS]
                values = self._values(kind, grids[kind])
                report.update((f'{kind}_{k}', _formatted(values[k]))
                              for k in values if k in items)
        return report

    def _values(self, kind: str, grid: PrecisionGrid) -> Dict[str, float]:
        """Return and log all of LVIS's numbers, not rounded."""
        columns = {
            letter: [k for k, category in enumerate(self.categories)
                     if category.frequency == letter] for letter in 'rcf'}
        values = {
            item: average_precision(grid, iou_thr=threshold, area=area,
                                    columns=columns.get(group))
            for item, (threshold, area, group) in AP_ITEMS.items()}
        values.update((item, average_recall(grid, area=area))
                      for item, area in AR_ITEMS.items())
        texts = [f'{item} {value:.3f}' for item, value in values.items()]
        print_log(f'{kind}: ' + ', '.join(texts), 'current')
        return values

    def _classwise(self, grid: PrecisionGrid) -> Dict[str, float]:
        """Return and log the AP of every category, NaN without objects."""
        report, rows = {}, []
        for label, category in enumerate(self.categories):
            value = average_precision(
                grid, columns=[label], missing=float('nan'))
            rows.append((category.name, f'{value:0.3f}'))
            report[f'{category.name}_precision'] = rounded(value)
        print_log('\n' + text_table(('category', 'AP'), rows), 'current')
        return report


def _formatted(value: float) -> float:
    """Round to 3 digits by formatting, as mmdet does for LVIS."""
    return float(f'{value:.3f}')
