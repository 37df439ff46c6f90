"""Suppression inside groups of boxes that never meet; k boxes."""
import math
from typing import List, Optional, Tuple

import torch
from torch import Tensor
from torchvision.ops import nms as nms_kernel

#: Boxes per kernel call. The kernel is quadratic: on one CPU core 256 boxes
#: take 0.08 ms and 1,024 take 3.5 ms; on a GPU each call costs more than that.
CPU_CALL_SIZE = 256
GPU_CALL_SIZE = 4096


def grouped_nms(boxes: Tensor, groups: Tensor,
                iou_threshold: float) -> Tensor:
    """Suppress greedily inside each group.

    Boxes (k, 4) are float64 and come best first; one goes if its IoU with a
    better one of its group (k,) is above the threshold. Returns the positions
    of those that stay, ascending.
    """
    groups, order = groups.sort(stable=True)
    counts = groups.unique_consecutive(return_counts=True)[1]
    size = CPU_CALL_SIZE if boxes.device.type == 'cpu' else GPU_CALL_SIZE
    spans, lanes = _share_calls(counts, size)
    boxes = boxes[order]
    if len(spans) < len(counts):
        moved = _move_apart(boxes, lanes.repeat_interleave(counts))
        if moved is None or iou_threshold < 0:
            spans = _share_calls(counts, 0)[0]
        else:
            boxes = moved
    # The kernel orders by score, equal ones as it likes: ours all differ.
    rank = torch.arange(
        len(boxes), 0, -1, dtype=boxes.dtype, device=boxes.device)
    kept = [order[:0]]
    for start, stop in spans:
        picked = nms_kernel(boxes[start:stop], rank[start:stop], iou_threshold)
        kept.append(order[start:stop][picked])
    return torch.cat(kept).sort().values


def _share_calls(counts: Tensor,
                 size: int) -> Tuple[List[Tuple[int, int]], Tensor]:
    """Let groups that start in the same ``size`` boxes share a kernel call.

    Returns start and stop of each call, and for each group its number inside
    its call. Size 0 gives each group a call of its own.
    """
    starts = counts.cumsum(0) - counts
    call = starts.div(size, rounding_mode='floor') if size else starts
    members = call.unique_consecutive(return_counts=True)[1]
    first = members.cumsum(0) - members  # the first group of each call
    lanes = torch.arange(len(counts), device=counts.device)
    lanes = lanes - first.repeat_interleave(members)
    bounds = starts[first].tolist() + [int(counts.sum())]
    return list(zip(bounds[:-1], bounds[1:], strict=True)), lanes


def _move_apart(boxes: Tensor, lanes: Tensor) -> Optional[Tensor]:
    """Move boxes of different lanes apart along x, or not at all.

    The step is a power of two above twice any coordinate, so float64 holds
    the sums exactly and every IoU stays the same, bit for bit. None where
    moving back shows a rounding (tiny coordinates beside large ones).
    """
    bound = float(boxes.abs().max())
    if not math.isfinite(bound):
        return None
    move = lanes[:, None] * 2.0**(math.frexp(bound)[1] + 1)
    moved = boxes.clone()
    moved[:, ::2] += move
    return moved if (moved[:, ::2] - move).equal(boxes[:, ::2]) else None
