"""COCO and V3Det evaluation that streams instead of piling up results."""
import os.path as osp
import tempfile
from typing import Any, Dict, List, Optional, Sequence, Union

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation.metrics import CocoMetric as _CocoMetric
from mmengine.dist import collect_results, get_world_size, is_main_process
from mmengine.fileio import dump, get_local_path
from mmengine.logging import print_log

from apa_mm.data.annotations import Category
from apa_mm.data.ground_truth import GroundTruth
from apa_mm.registry import METRICS
from apa_mm.utils.checks import check_choice
from .coco_report import ap_limits, coco_report, detection_limits
from .eval_summary import PrecisionGrid
from .mask_rle import encode_masks
from .streaming import Detections, StreamingMatcher, need_hotcoco


@METRICS.register_module()
class CocoMetric(_CocoMetric):
    """mmdet's ``CocoMetric`` with matching in :meth:`process`.

    Drop-in for mmdet's class: same arguments, keys, rounding and result
    files. Each rank matches an image when it comes and keeps counts only, by
    hotcoco; images that come twice count once, images that never come count
    as missed. With several data sets (mmdet's ``ConcatDataset``) image ids
    may meet, so results are kept and matched at the end.

    Numbers equal pycocotools' with these exceptions, all meant: an annotation
    with id 0 can be matched; classwise rows stay with their category when the
    file's categories are not sorted by id; no detection at all gives 0 and
    not an empty dict; ``AR@n`` is the recall at n, whatever the order of
    ``proposal_nums``; one or two ``proposal_nums`` work. NaN scores, labels
    without a class and unknown images raise.

    Args:
        ann_file (str, optional): Without it the ground truth comes from the
            data samples, and all results are gathered first.
        metric (str | list[str]): 'bbox', 'segm' and 'proposal'; the last is
            left to mmdet and, as result files, needs the raw results of all
            ranks.
        use_mp_eval (bool): Read every AP at the last of ``proposal_nums``, as
            mmdet's multi-process evaluator does (V3Det: 300); otherwise see
            :func:`~apa_mm.det.coco_report.ap_limits`. Starts no processes.
        max_dets (int, optional): Read every AP at this limit instead.
        segm_area (str): Whether a detected mask is small, medium or large by
            the area of its 'mask' (pycocotools, mmdet) or of its 'box'.
        **kwargs: ``metric_items`` may name 'mAP', 'mAP_50', 'mAP_75',
            'mAP_s', 'mAP_m', 'mAP_l' (the default), and 'AR@n', 'AR_s@n',
            'AR_m@n', 'AR_l@n' for any n. Others are as of mmdet's class.

    Raises:
        ValueError: If an argument or the annotation file is unusable.
        KeyError: If a metric or metric item is unknown.
        ImportError: If hotcoco is missing or too old.
    """
    lvis_style = False
    #: Of LVIS alone.
    max_dets_per_class = dilation_ratio = None

    def __init__(
            self, ann_file: Optional[str] = None,
            metric: Union[str, List[str]] = 'bbox', *,
            iou_thrs: Optional[Union[float, Sequence[float]]] = None,
            format_only: bool = False, outfile_prefix: Optional[str] = None,
            sort_categories: bool = False, use_mp_eval: bool = False,
            max_dets: Optional[int] = None, segm_area: str = 'mask',
            **kwargs) -> None:
        if format_only and outfile_prefix is None:
            raise ValueError(
                'format_only=True needs outfile_prefix, but got None; set '
                'outfile_prefix to the path prefix of the result files')
        super().__init__(
            metric=metric, format_only=format_only, use_mp_eval=use_mp_eval,
            iou_thrs=[iou_thrs] if isinstance(iou_thrs, float) else iou_thrs,
            outfile_prefix=outfile_prefix, **kwargs)
        check_choice('segm_area', segm_area, ('box', 'mask'))
        if 'proposal_fast' in self.metrics:
            raise ValueError(
                "metric 'proposal_fast' is not supported, since mmdet's "
                "function fails with numpy >= 1.24; use metric='proposal'")
        need_hotcoco()
        self.ann_file = ann_file
        self.sort_categories = sort_categories
        self.segm_area = segm_area
        self.ap_limits = ap_limits(self.proposal_nums, use_mp_eval, max_dets)
        self.max_dets = self._detection_limits()
        self.truth = None if ann_file is None else self._read_truth(
            ann_file, self.backend_args)
        self._matcher: Optional[StreamingMatcher] = None
        self._grids: Optional[Dict[str, PrecisionGrid]] = None

    def _detection_limits(self) -> List[int]:
        """Check the metric items and return the limits that they need."""
        return detection_limits(self.ap_limits, self.metric_items)

    def _iou_types(self) -> List[str]:
        """Return the IoU types that the metrics need a grid of."""
        return [m for m in ('bbox', 'segm') if m in self.metrics]

    def _read_truth(self, ann_file: str,
                    backend_args: Optional[dict] = None) -> GroundTruth:
        truth = GroundTruth(
            ann_file, backend_args, lvis_style=self.lvis_style,
            with_masks='segm' in self._iou_types() and not self.format_only,
            with_annotations=not self.format_only)
        if self.sort_categories:
            truth.categories.sort(key=lambda category: category.id)
        return truth

    def _streams(self) -> bool:
        """Return whether images are matched as they come."""
        # Not where ids of several data sets may meet: mmdet's concatenation
        # has a list of meta information or the sizes of its members.
        meta = self.dataset_meta
        several = isinstance(meta, (list, tuple)) or len(
            (meta or {}).get('cumulative_sizes', ())) > 1
        return self.truth is not None and not (several or self.format_only)

    def _prepare_categories(self) -> None:
        """Set the category id of each label, once the classes are known."""
        if self.cat_ids is not None:
            return
        classes = (self.dataset_meta or {}).get('classes')
        if self.truth is not None:
            self.categories = self.truth.select(classes)
            self.img_ids = list(self.truth.images)
        elif classes is not None:
            self.categories = [Category(id=i, name=name)
                               for i, name in enumerate(classes)]
        else:
            raise ValueError(
                "dataset_meta has no 'classes', which label the results when "
                'ann_file is None; set ann_file of the metric')
        self.cat_ids = [category.id for category in self.categories]

    def _new_matcher(self, truth: GroundTruth) -> StreamingMatcher:
        return StreamingMatcher(
            truth, self.categories, self._iou_types(), self.max_dets,
            self.iou_thrs, self.segm_area, self.max_dets_per_class,
            self.dilation_ratio)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Match a batch of predictions, or keep them where that is asked.

        Each data sample has ``img_id``, ``ori_shape`` and ``pred_instances``,
        see :class:`Detections`; ``data_batch`` is not used.
        """
        streams = self._streams()
        need_masks = 'segm' in self._iou_types()
        keep_masks = self.outfile_prefix is not None or (
            need_masks and not streams)
        # mmdet's recall of proposals works on all results at once.
        keep_raw = keep_masks or not streams or (
            'proposal' in self.metrics and not self.lvis_style)
        if not isinstance(self.dataset_meta, (list, tuple)):
            self._prepare_categories()
        if streams and self._matcher is None:
            self._matcher = self._new_matcher(self.truth)
        for sample in data_samples:
            found = Detections.from_sample(sample, need_masks)
            if self.cat_ids is not None:
                self._check_labels(sample['img_id'], found.labels)
            if keep_masks and found.masks is not None:
                found = found._replace(masks=encode_masks(found.masks))
            if streams:
                self._matcher.update(sample['img_id'], found)
            if not keep_masks:
                found = found._replace(masks=None)
            self.results.append(self._raw_result(sample, found)
                                if keep_raw else sample['img_id'])

    def _check_labels(self, image_id: int, labels: np.ndarray) -> None:
        if labels.size and not 0 <= labels.min() <= labels.max() < len(
                self.cat_ids):
            raise ValueError(
                f'labels must be in [0, {len(self.cat_ids) - 1}], but the '
                f'predictions of image id {image_id!r} reach from '
                f'{labels.min()} to {labels.max()}; set num_classes of the '
                'head to the number of evaluated classes')

    def _raw_result(self, sample: dict, found: Detections) -> tuple:
        """Return ground truth and result as mmdet's own methods read them."""
        height, width = sample['ori_shape'][:2]
        truth = dict(width=width, height=height, img_id=sample['img_id'])
        if self.truth is None:
            if 'instances' not in sample:
                raise ValueError(
                    f"data sample of image id {sample['img_id']!r} has no "
                    "'instances' and ann_file is None; set ann_file of the "
                    'metric')
            truth['anns'] = sample['instances']
        return truth, found.as_result(sample['img_id'])

    def evaluate(self, size: int) -> Dict[str, float]:
        """Merge the counts of all ranks and return the metrics."""
        try:
            if self._streams():
                self._grids = self._merge_ranks()
            return super().evaluate(size)
        finally:
            self._matcher = self._grids = None

    def _merge_ranks(self) -> Dict[str, PrecisionGrid]:
        """Return the grids of all images on the main rank."""
        self._prepare_categories()
        matcher = self._matcher or self._new_matcher(self.truth)
        if get_world_size() > 1:
            parts = collect_results([matcher.state()], get_world_size(),
                                    self.collect_device)
            if not is_main_process():
                return {}
            matcher.merge(parts)
        return matcher.finish()

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """Compute the metrics on the main rank.

        ``results`` hold per image its id, or ground truth and result where
        raw results are kept.
        """
        self._prepare_categories()
        if self._streams() and self._grids is None:
            raise RuntimeError(
                f'{type(self).__name__}.compute_metrics was called without '
                'evaluate(), which merges what the ranks have counted; use '
                "mmengine's Evaluator, or mmdet's ConcatDataset of the data "
                'sets')
        if self.outfile_prefix:
            self._write_results(results)
        if self.format_only:
            return {}
        grids = self._grids
        if grids is None:
            results = self._renumbered(results)
            grids = self._grids_of_raw(results)
        report: Dict[str, float] = {}
        for metric in self.metrics:
            print_log(f'Evaluating {metric}...', 'current')
            report.update(self._report(metric, grids, results))
        return report

    def _write_results(self, results: list) -> None:
        if results:
            self.results2json([r for _, r in results], self.outfile_prefix)
        else:
            for kind in ('bbox', 'segm'):
                dump([], f'{self.outfile_prefix}.{kind}.json')
        print_log(f'results are saved in {osp.dirname(self.outfile_prefix)}',
                  'current')

    def _renumbered(self, results: list) -> list:
        """Number images anew if ids meet and their truth is in the samples.

        Otherwise ids stay, since equal scores are ranked by them.
        """
        ids = {truth['img_id'] for truth, _ in results}
        if self.truth is not None or len(ids) == len(results):
            return results
        return [(dict(truth, img_id=k), dict(result, img_id=k))
                for k, (truth, result) in enumerate(results)]

    def _grids_of_raw(self, results: list) -> Dict[str, PrecisionGrid]:
        """Match kept results."""
        truth = self.truth
        if truth is None:
            with tempfile.TemporaryDirectory() as folder:
                truth = self._read_truth(self.gt_to_coco_json(
                    [t for t, _ in results], osp.join(folder, 'truth')))
        matcher = self._new_matcher(truth)
        for _, result in results:
            image_id = result['img_id']
            self._check_labels(image_id, result['labels'])
            if image_id in matcher.seen:
                raise ValueError(
                    f'image id {image_id!r} comes from more than one of the '
                    'concatenated data sets; give each a metric of its own '
                    "with val_evaluator=dict(type='MultiDatasetsEvaluator', "
                    'metrics=[...], dataset_prefixes=[...])')
            matcher.update(image_id, Detections.from_result(result))
        return matcher.finish()

    def _report(self, metric: str, grids: Dict[str, PrecisionGrid],
                results: list) -> Dict[str, float]:
        """Return and log the numbers of one metric."""
        if metric == 'proposal':
            return self._proposal(results)
        return coco_report(
            metric, grids[metric], self.ap_limits, self.metric_items,
            self.categories if self.classwise else None)

    def _proposal(self, results: list) -> Dict[str, float]:
        """Leave class-agnostic recall to mmdet."""
        if self.ann_file is not None:
            with get_local_path(
                    self.ann_file, backend_args=self.backend_args) as path:
                self._coco_api = COCO(path)
        kept = self.metrics, self.outfile_prefix
        self.metrics, self.outfile_prefix = ['proposal'], None
        try:
            return super().compute_metrics(results)
        finally:
            self.metrics, self.outfile_prefix = kept
            self._coco_api = None
