"""NMS of one image, ours beside mmdet's, from 80 to 13,204 classes."""
import time
from statistics import median
from typing import Callable, List, NamedTuple, Tuple

import torch
from mmdet.models.layers import multiclass_nms
from torch import Tensor

from apa_mm.det.nms import exact_multiclass_nms

TITLE = 'NMS of one image: 1,000 clustered RoIs, class-agnostic boxes'
NUM_ROIS = 1000
NUM_OBJECTS = 20
NMS = dict(type='nms', iou_threshold=0.5)


class Case(NamedTuple):
    """One kind of scores.

    ``spread`` and ``peak`` are the standard deviation of the logits and what
    the class of the object has on top; they were chosen for the number of
    candidates.
    """

    name: str
    num_classes: int
    score_thr: float
    max_num: int
    spread: float
    peak: float
    mmdet_seconds: float = 0.0


CASES = [
    Case('80 classes, threshold 0.05', 80, 0.05, 100, 1.5, 8.0),
    Case('80 classes, threshold 1e-4', 80, 1e-4, 300, 1.5, 8.0),
    Case('1,203 classes, LVIS-like scores', 1203, 1e-4, 300, 2.0, 14.0, 28),
    Case('13,204 classes, V3Det-like softmax', 13204, 1e-4, 300, 1.0, 6.0,
         109),
]


def make_input(case: Case) -> Tuple[Tensor, Tensor]:
    """Return boxes (N, 4) in a 1333 x 800 image and scores (N, C + 1)."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    owner = torch.randint(NUM_OBJECTS, (NUM_ROIS, ), generator=generator)
    size = torch.rand(NUM_OBJECTS, 2, generator=generator) * 300 + 20
    border = torch.tensor([1333.0, 800.0])
    centre = torch.rand(NUM_OBJECTS, 2, generator=generator) * border
    centre = centre[owner] + normal(NUM_ROIS, 2) * 8
    half = size[owner] * (normal(NUM_ROIS, 2) * 0.1).exp() / 2
    boxes = torch.cat([(centre - half).clamp(min=0).minimum(border),
                       (centre + half).clamp(min=0).minimum(border)], dim=1)
    label = torch.randint(
        case.num_classes, (NUM_OBJECTS, ), generator=generator)[owner]
    logits = normal(NUM_ROIS, case.num_classes + 1) * case.spread
    logits[torch.arange(NUM_ROIS), label] += case.peak
    return boxes, logits.softmax(dim=1)


def seconds(function: Callable) -> float:
    """Return how long one call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def measure(case: Case, repeats: int, quick: bool) -> dict:
    """Return the row of one case."""
    boxes, scores = make_input(case)
    args = (boxes, scores, case.score_thr, NMS, case.max_num, None, True)
    results: dict = {}

    def ours() -> None:
        results['ours'] = exact_multiclass_nms(*args)

    def theirs() -> None:
        results['theirs'] = multiclass_nms(*args)

    candidates = int((scores[:, :-1] > case.score_thr).sum())
    notes = [f'{candidates:,} candidates']
    slow = case.mmdet_seconds > 0
    ours()  # not counted: the first call loads things
    times = []
    for _ in range(repeats):
        if not slow:
            theirs_time = seconds(theirs)
        times.append((seconds(ours), 0.0 if slow else theirs_time))
    mine = median(t[0] for t in times)
    reference = median(t[1] for t in times)
    if slow and quick:
        reference = None
        notes.append(f'mmdet skipped (about {case.mmdet_seconds:.0f} s)')
    elif slow:
        reference = seconds(theirs)
        notes.append('mmdet measured once')
    if 'theirs' in results:
        kept, other = (set(results[k][2].tolist()) for k in results)
        notes.append(f'{len(kept - other)} of {len(kept)} entries not '
                     "in mmdet's result")
    return dict(
        case=case.name,
        ours=mine * 1e3,
        theirs=reference and reference * 1e3,
        ratio=reference and reference / mine,
        unit='ms',
        note=', '.join(notes))


def run(repeats: int = 5, quick: bool = False) -> List[dict]:
    """Measure every case.

    Args:
        repeats (int): Calls whose median counts; mmdet's calls of 28 s and
            109 s are made once.
        quick (bool): Leave those out.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio' (theirs over
        ours), 'unit' and 'note'.
    """
    rows = [measure(case, repeats, quick) for case in CASES]
    for row in rows[2:]:
        row['note'] += (f'; ours takes {row["ours"] / rows[0]["ours"]:.0f} '
                        'times its time at 80 classes')
    return rows
