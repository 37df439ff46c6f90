"""Hard NMS whose cost follows the detections kept, not the classes.

Shapes: N boxes or RoIs, C classes, n candidates (pairs of RoI and class above
the score threshold), k candidates under inspection, D box dimension (4).

Candidates are ordered by score, equal scores by the flat index
``roi * C + class``. Greedy NMS judges a candidate by better ones only, so a
prefix of the list gets the same decisions as the whole.
"""
from typing import Callable, NamedTuple, Optional, Tuple

import torch
from mmcv.ops import nms as mmcv_nms
from mmdet.models.layers import multiclass_nms
from torch import Tensor

from apa_mm.det.nms_groups import grouped_nms
from apa_mm.det.nms_order import ScoredPairs, best

#: Keys of ``nms_cfg`` that hard NMS understands. Any other key is for mmdet.
HARD_NMS_KEYS = {
    'type', 'iou_threshold', 'iou_thr', 'offset', 'score_threshold', 'max_num',
    'split_thr', 'class_agnostic', 'exact'}
#: Least number of candidates looked at first; a second round costs more than
#: a shorter prefix saves (1,566 candidates of 80 classes: 1.4 ms in one round,
#: 1.8 ms in two).
MIN_PREFIX = 1536
#: First prefix per box asked for, and the growth of each later one.
PREFIX_FACTOR = 4


class HardNMS(NamedTuple):
    """What ``nms_cfg`` asks for; None as threshold means no suppression."""

    iou_threshold: Optional[float]
    offset: int = 0
    score_threshold: float = 0.0
    max_num: int = -1
    class_agnostic: bool = False

    @classmethod
    def parse(cls, nms_cfg: Optional[dict],
              box_dim: int) -> Optional['HardNMS']:
        """Return the settings, or None if mmdet has to do the work."""
        if torch.onnx.is_in_onnx_export():
            return None
        if nms_cfg is None:
            return cls(None)
        cfg = dict(nms_cfg)
        if (not cfg.get('exact', True) or box_dim != 4
                or cfg.get('type', 'nms') not in ('nms', mmcv_nms)
                or not HARD_NMS_KEYS.issuperset(cfg)):
            return None
        threshold = cfg.get('iou_threshold', cfg.get('iou_thr'))
        if threshold is None:
            raise KeyError(
                f'nms_cfg lacks iou_threshold, got {cfg}; write for example '
                "dict(type='nms', iou_threshold=0.5)")
        known = {key: cfg[key] for key in cls._fields[1:] if key in cfg}
        hard = cls(threshold, **known)
        if hard.offset not in (0, 1):
            raise ValueError(
                f'nms_cfg.offset must be 0 or 1, but got {hard.offset}')
        return hard


def exact_multiclass_nms(
        multi_bboxes: Tensor, multi_scores: Tensor, score_thr: float,
        nms_cfg: Optional[dict], max_num: int = -1,
        score_factors: Optional[Tensor] = None, return_inds: bool = False,
        box_dim: int = 4) -> Tuple[Tensor, ...]:
    """Suppress per class, exactly, at the cost of the boxes returned.

    A drop-in for mmdet's ``multiclass_nms``: boxes (N, C * D) or, shared by
    all classes, (N, D), and scores (N, C + 1), the last column the
    background. It differs from mmdet's in three ways:

    - Boxes of different classes never meet, and IoU is in float64. mmdet
      moves each class by ``label * (max coordinate + 1)`` in float32, which
      loses whole pixels once that passes 2^24 (about label 12,600 at 1,333
      pixels).
    - Equal scores are ordered by flat index ``roi * C + class``, on every
      device; mmdet leaves the order to an unstable sort.
    - ``class_agnostic=True`` holds for any number of candidates, and
      ``split_thr`` has no effect; mmdet drops the one from the other on.

    mmdet's function does the work if ``nms_cfg`` says ``exact=False``, its
    type is not 'nms', it has keys that hard NMS does not know, ``box_dim`` is
    not 4, or the model is being exported to ONNX.

    Returns:
        tuple[Tensor]: Boxes with scores (k, D + 1), labels (k,) and, with
        ``return_inds``, indices ``roi * C + class`` (k,); best score first.

    Raises:
        ValueError: If shapes do not fit together or ``offset`` is unknown.
        KeyError: If ``nms_cfg`` has no ``iou_threshold``.
    """
    hard = HardNMS.parse(nms_cfg, box_dim)
    if hard is None:
        if nms_cfg is not None:
            nms_cfg = {k: v for k, v in nms_cfg.items() if k != 'exact'}
        return multiclass_nms(multi_bboxes, multi_scores, score_thr, nms_cfg,
                              max_num, score_factors, return_inds, box_dim)
    num, num_classes = len(multi_scores), multi_scores.size(1) - 1
    shapes = (num, box_dim), (num, num_classes * box_dim)
    if multi_bboxes.shape not in shapes:
        raise ValueError(
            f'multi_scores of shape {tuple(multi_scores.shape)} need '
            f'multi_bboxes of shape {shapes[0]} or {shapes[1]}, but got '
            f'{tuple(multi_bboxes.shape)}; scores carry one background column '
            'more than boxes')
    pairs = ScoredPairs(multi_scores, score_thr, score_factors,
                        hard.score_threshold)
    shared = multi_bboxes.size(1) == box_dim
    boxes = multi_bboxes if shared else multi_bboxes.reshape(-1, box_dim)

    def look_up(places: Tensor) -> Tuple[Tensor, Tensor]:
        rows, labels = pairs.split(places)
        return boxes[rows if shared else rows * num_classes + labels], labels

    keep = _select(pairs.first, look_up, hard, max_num)
    kept_boxes, labels = look_up(keep)
    dets = torch.cat([kept_boxes, pairs.at(keep)[:, None]], dim=-1)
    if return_inds:
        return dets, labels, pairs.split(keep)[0] * num_classes + labels
    return dets, labels


def exact_batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor,
                      nms_cfg: Optional[dict],
                      max_num: int = -1) -> Tuple[Tensor, Tensor]:
    """Suppress inside each group, exactly, as mmcv's ``batched_nms`` means to.

    Boxes (N, 4), scores and groups ``idxs`` (N,); returns boxes with scores
    (k, 5) and their indices (k,), best first, equal scores by index.

    Raises:
        ValueError: If ``nms_cfg`` does not describe hard NMS on xyxy boxes.
    """
    hard = HardNMS.parse(nms_cfg, boxes.size(-1))
    if hard is None:
        raise ValueError(
            'exact_batched_nms does hard NMS of xyxy boxes only, but got '
            f'nms_cfg={nms_cfg} and boxes of shape {tuple(boxes.shape)}; '
            'use mmcv.ops.batched_nms for other kinds')
    chosen = torch.arange(len(scores), device=scores.device)
    if hard.score_threshold > 0:
        chosen = chosen[scores > hard.score_threshold]
    eligible = scores[chosen]

    def first(count: int) -> Tuple[Tensor, bool]:
        count = count if count > 0 else len(chosen)
        return chosen[best(eligible, count)], count < len(chosen)

    def look_up(picked: Tensor) -> Tuple[Tensor, Tensor]:
        return boxes[picked], idxs[picked]

    keep = _select(first, look_up, hard, max_num)
    return torch.cat([boxes[keep], scores[keep, None]], dim=-1), keep


@torch.no_grad()
def _select(first: Callable, look_up: Callable, hard: HardNMS,
            max_num: int) -> Tensor:
    """Return the candidates that survive, best first.

    ``first(n)`` gives the first n candidates (k,), all for 0, and whether
    there are more; ``look_up`` their boxes (k, 4) and groups (k,). More are
    taken until enough survive; only survivors suppress the next ones.
    """
    limit = min((m for m in (max_num, hard.max_num) if m > 0), default=0)
    if hard.iou_threshold is None:
        return first(limit)[0]
    width = max(MIN_PREFIX, PREFIX_FACTOR * limit) if limit else 0
    best, more = first(width)
    kept, done = best[:0], 0
    while True:
        kept = torch.cat([kept, best[done:]])
        boxes, groups = look_up(kept)
        boxes = boxes.double()
        if hard.offset:
            boxes = boxes + boxes.new_tensor([0, 0, hard.offset, hard.offset])
        if hard.class_agnostic:
            groups = torch.zeros_like(groups)
        kept = kept[grouped_nms(boxes, groups, hard.iou_threshold)]
        if not more or 0 < limit <= len(kept):
            return kept[:limit or None]
        done, width = len(best), width * PREFIX_FACTOR
        best, more = first(width)
