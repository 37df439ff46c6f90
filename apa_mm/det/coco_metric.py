"""COCO and V3Det evaluation that streams instead of piling up results."""
import os.path as osp
import tempfile
from collections import OrderedDict
from typing import Any, Dict, List, Optional, Sequence, Union

from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation.metrics import CocoMetric as _CocoMetric
from mmengine.dist import collect_results, get_world_size, is_main_process
from mmengine.fileio import dump, get_local_path, load
from mmengine.logging import MMLogger

from apa_mm.registry import METRICS
from apa_mm.utils.checks import check_choice
from apa_mm.data.annotation_file import AnnotationFile
from .coco_report import (ap_limits, check_items, coco_report,
                          detection_limits)
from .eval_fallback import check_cells, coco_grid, resolve_backend
from .eval_summary import PrecisionGrid
from .mask_rle import encode_masks
from .streaming import Detections, StreamingMatcher

__all__ = ['CocoMetric']

@METRICS.register_module()
class CocoMetric(_CocoMetric):
    """mmdet's ``CocoMetric`` with matching in :meth:`process`.

    Drop-in for mmdet's class: same arguments, keys, rounding, tables and
    result files. Each rank matches an image when it comes and keeps counts
    only (hotcoco's streaming evaluator), ranks merge counts, images that come
    twice count once and images that never come count as missed. V3Det's
    13,204 classes and 29,821 images need seconds and gigabytes, not hours and
    hundreds of gigabytes.

    Numbers equal pycocotools' with these exceptions, all meant: an annotation
    with id 0 can be matched; classwise rows stay with their category when the
    file's categories are not sorted by id; no detection at all gives 0 and
    not an empty dict; ``AR@n`` is the recall at n, whatever the order of
    ``proposal_nums``; one or two ``proposal_nums`` work. NaN scores, labels
    without a class and unknown images raise.

    Args:
        ann_file (str, optional): Annotation file. Without it the ground truth
            comes from the data samples, and all results are gathered first.
        metric (str | list[str]): 'bbox', 'segm' and 'proposal'; the last is
            left to mmdet and needs the raw results of all ranks.
        classwise (bool): Add ``{name}_precision`` and log a table.
        proposal_nums (Sequence[int]): Limits on detections per image and
            class, see ``max_dets``.
        iou_thrs (float | Sequence[float], optional): IoU thresholds. Defaults
            to 0.5, 0.55, ..., 0.95.
        metric_items (Sequence[str], optional): Of 'mAP', 'mAP_50', 'mAP_75',
            'mAP_s', 'mAP_m', 'mAP_l', and 'AR@n', 'AR_s@n', 'AR_m@n',
            'AR_l@n' for any n. Defaults to the first six.
        format_only (bool): Only write the result files.
        outfile_prefix (str, optional): Prefix of the result files. Writing
            them needs the raw results of all ranks.
        file_client_args (dict, optional): Refused, as by mmdet.
        backend_args (dict, optional): mmengine file backend of ``ann_file``.
        collect_device (str): 'cpu' or 'gpu'.
        prefix (str, optional): Of the metric names. Defaults to 'coco'.
        sort_categories (bool): Number labels by category id, not by file
            order (Objects365 v1).
        use_mp_eval (bool): True reads every AP at the last of
            ``proposal_nums``, as mmdet's multi-process evaluator does (V3Det:
            300). False reads mAP at 100 if ``proposal_nums`` has it, the
            other five at the third of ``proposal_nums``, as pycocotools does.
            No processes are started.
        max_dets (int, optional): Read every AP at this limit instead.
        segm_area (str): Whether a detected mask is small, medium or large by
            the area of its 'mask' (pycocotools, mmdet) or of its 'box'.
        backend (str): 'hotcoco', 'pycocotools', or 'auto', which falls back
            on pycocotools with a warning and refuses sizes for which that
            would need more than about 7 GB.

    Raises:
        ValueError: If an argument or the annotation file is unusable.
        KeyError: If a metric or metric item is unknown.
        RuntimeError: If no backend can do the work.

    Example:
        >>> metric = CocoMetric(metric='bbox', proposal_nums=[300],
        ...                     use_mp_eval=True)
        >>> metric.ap_limits
        (300, 300, 300)
    """
    lvis_style = False
    fallback = 'pycocotools'

    def __init__(self,
                 ann_file: Optional[str] = None,
                 metric: Union[str, List[str]] = 'bbox',
                 classwise: bool = False,
                 proposal_nums: Sequence[int] = (100, 300, 1000),
                 iou_thrs: Optional[Union[float, Sequence[float]]] = None,
                 metric_items: Optional[Sequence[str]] = None,
                 format_only: bool = False,
                 outfile_prefix: Optional[str] = None,
                 file_client_args: Optional[dict] = None,
                 backend_args: Optional[dict] = None,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None,
                 sort_categories: bool = False,
                 use_mp_eval: bool = False,
                 max_dets: Optional[int] = None,
                 segm_area: str = 'mask',
                 backend: str = 'auto') -> None:
        if format_only and outfile_prefix is None:
            raise ValueError(
                'format_only=True needs outfile_prefix, but got None; set '
                'outfile_prefix to the path prefix of the result files')
        super().__init__(
            metric=metric,
            classwise=classwise,
            proposal_nums=proposal_nums,
            iou_thrs=[iou_thrs] if isinstance(iou_thrs, float) else iou_thrs,
            metric_items=metric_items,
            format_only=format_only,
            outfile_prefix=outfile_prefix,
            file_client_args=file_client_args,
            backend_args=backend_args,
            collect_device=collect_device,
            prefix=prefix,
            use_mp_eval=use_mp_eval)
        check_choice('segm_area', segm_area, ('box', 'mask'))
        self.ann_file = ann_file
        self.sort_categories = sort_categories
        self.segm_area = segm_area
        self.ap_limits = ap_limits(self.proposal_nums, use_mp_eval, max_dets)
        self._check_metrics()
        self.max_dets = self._detection_limits()
        self.backend = 'none' if format_only else resolve_backend(
            backend, self.fallback)
        self.truth = self._read_truth(ann_file, backend_args)
        self._refuses = backend == 'auto' and self.backend == self.fallback
        if self._refuses and self.truth is not None:
            check_cells(
                len(self.truth.images), len(self.truth.categories), ann_file,
                self.fallback)
        self._streaming = self.backend == 'hotcoco' and self.truth is not None
        self._keep_masks = outfile_prefix is not None or (
            'segm' in self._iou_types() and not self._streaming)
        self._keep_raw = (self._keep_masks or not self._streaming
                          or self._needs_raw_boxes())
        self._matcher: Optional[StreamingMatcher] = None
        self._grids: Dict[str, PrecisionGrid] = {}

    def _check_metrics(self) -> None:
        """Refuse what would fail only after the whole inference."""
        if 'proposal_fast' in self.metrics:
            raise ValueError(
                "metric 'proposal_fast' is not supported, since mmdet's "
                "function fails with numpy >= 1.24; use metric='proposal'")
        self._check_items()

    def _check_items(self) -> None:
        check_items(self.metric_items)

    def _detection_limits(self) -> List[int]:
        return detection_limits(self.ap_limits, self.metric_items)

    def _needs_raw_boxes(self) -> bool:
        """Return whether a metric works on all results at once."""
        return 'proposal' in self.metrics

    def _iou_types(self) -> List[str]:
        """Return the IoU types that the metrics need a grid of."""
        return [m for m in ('bbox', 'segm') if m in self.metrics]

    def _read_truth(self,
                    ann_file: Optional[str],
                    backend_args: Optional[dict] = None
                    ) -> Optional[AnnotationFile]:
        if ann_file is None:
            return None
        truth = AnnotationFile(
            ann_file,
            backend_args,
            lvis_style=self.lvis_style,
            with_masks='segm' in self._iou_types() and not self.format_only,
            with_annotations=not self.format_only,
            keep=self.backend == 'hotcoco')
        if self.sort_categories:
            truth.categories.sort(key=lambda category: category['id'])
        return truth

    def _prepare_categories(self) -> None:
        """Set the category id of each label, once the classes are known."""
        classes = (self.dataset_meta or {}).get('classes')
        if self.truth is not None:
            self.categories = self.truth.select(classes)
            self.img_ids = list(self.truth.images)
        elif classes is not None:
            self.categories = [
                dict(id=i, name=name) for i, name in enumerate(classes)
            ]
        else:
            raise ValueError(
                "dataset_meta has no 'classes', which label the results when "
                'ann_file is None; set ann_file of the metric')
        self.cat_ids = [category['id'] for category in self.categories]

    def _new_matcher(self, truth: AnnotationFile) -> StreamingMatcher:
        return StreamingMatcher(truth, self.categories, self._iou_types(),
                                self.max_dets, self.iou_thrs, self.segm_area)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Match a batch of predictions, or keep them where that is asked.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): Each with ``img_id``, ``ori_shape``
                and ``pred_instances``: ``bboxes`` (N, 4) xyxy in pixels of
                the original image, ``scores`` (N, ), ``labels`` (N, ),
                ``masks`` (N, H, W) or N run-length codes, ``mask_scores``.
        """
        if self.cat_ids is None:
            self._prepare_categories()
        if self._streaming and self._matcher is None:
            self._matcher = self._new_matcher(self.truth)
        for sample in data_samples:
            found = Detections.from_sample(
                sample, len(self.cat_ids), 'segm' in self._iou_types())
            if self._keep_masks and found.masks is not None:
                found = found._replace(masks=encode_masks(found.masks))
            if self._streaming:
                self._matcher.update(sample['img_id'], found)
            self.results.append(
                self._raw_result(sample, found)
                if self._keep_raw else sample['img_id'])
        if self._refuses and self.truth is None:
            check_cells(
                len(self.results) * get_world_size(), len(self.cat_ids),
                'the data set', self.fallback)

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
        result = dict(
            img_id=sample['img_id'],
            bboxes=found.boxes,
            scores=found.scores,
            labels=found.labels)
        if self._keep_masks and found.masks is not None:
            result['masks'] = found.masks
        if found.mask_scores is not None:
            result['mask_scores'] = found.mask_scores
        return truth, result

    def evaluate(self, size: int) -> Dict[str, float]:
        """Merge the counts of all ranks and return the metrics.

        Args:
            size (int): Number of images of the dataset.

        Returns:
            dict[str, float]: Metrics with prefix, the same on every rank.
        """
        try:
            if self._streaming:
                self._grids = self._merge_ranks()
            return super().evaluate(size)
        finally:
            self._matcher = None
            self._grids = {}

    def _merge_ranks(self) -> Dict[str, PrecisionGrid]:
        """Return the grids of all images on the main rank."""
        if self.cat_ids is None:
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

        Args:
            results (list): Per image its id, or ground truth and result where
                raw results are kept.

        Returns:
            dict[str, float]: Metrics without prefix.
        """
        logger = MMLogger.get_current_instance()
        metrics: Dict[str, float] = OrderedDict()
        if self.cat_ids is None:
            self._prepare_categories()
        with tempfile.TemporaryDirectory() as folder:
            prefix = self.outfile_prefix or osp.join(folder, 'results')
            files = self._write_results(results, prefix)
            if self.format_only:
                logger.info(f'results are saved in {osp.dirname(prefix)}')
                return metrics
            grids = self._grids if self._streaming \
                else self._grids_of_raw(results, files)
            for metric in self.metrics:
                logger.info(f'Evaluating {metric}...')
                metrics.update(self._report(metric, grids, results))
        return metrics

    def _write_results(self, results: list, prefix: str) -> Dict[str, str]:
        """Write what was asked for or is needed; return the paths."""
        files = {}
        if self.outfile_prefix or self.backend == self.fallback:
            if results:
                files = self.results2json([r for _, r in results], prefix)
            else:
                files = {t: f'{prefix}.{t}.json' for t in ('bbox', 'segm')}
                for path in files.values():
                    dump([], path)
        if self.truth is None:
            files['truth'] = self.gt_to_coco_json([t for t, _ in results],
                                                  prefix)
        return files

    def _grids_of_raw(self, results: list,
                      files: Dict[str, str]) -> Dict[str, PrecisionGrid]:
        """Evaluate gathered results: the fallback, or truth in samples."""
        if self.backend == self.fallback:
            with get_local_path(
                    files.get('truth', self.ann_file),
                    backend_args=self.backend_args) as path:
                return {
                    iou_type: self._fallback_grid(path, load(files[iou_type]),
                                                  iou_type)
                    for iou_type in self._iou_types()
                }
        matcher = self._new_matcher(self._read_truth(files['truth']))
        for _, result in results:
            matcher.update(
                result['img_id'],
                Detections(result['bboxes'], result['scores'],
                           result['labels'], result.get('masks'),
                           result.get('mask_scores')))
        return matcher.finish()

    def _fallback_grid(self, path: str, detections: List[dict],
                       iou_type: str) -> PrecisionGrid:
        return coco_grid(path, detections, iou_type, self.segm_area,
                         self.cat_ids, self.max_dets, self.iou_thrs)

    def _report(self, metric: str, grids: Dict[str, PrecisionGrid],
                results: list) -> Dict[str, float]:
        """Return and log the numbers of one metric."""
        if metric == 'proposal':
            return self._proposal(results)
        return coco_report(metric, grids[metric], self.ap_limits,
                           self.metric_items,
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
