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
#: Calls of ours per call of mmdet's: they are short, so noise weighs more.
OUR_CALLS = 5
#: mmdet's calls end after this many seconds altogether.
BUDGET_S = 15.0


class Case(NamedTuple):
    """One kind of scores.

    ``spread`` and ``peak`` are the standard deviation of the logits and what
    the class of the object has on top; they were chosen for the number of
    candidates. ``slow``: a call of mmdet's takes a second or minutes.
    """

    name: str
    num_classes: int
    score_thr: float
    max_num: int
    spread: float
    peak: float
    slow: bool = False


CASES = [
    Case('80 classes, threshold 0.05', 80, 0.05, 100, 1.5, 8.0),
    Case('80 classes, threshold 1e-4', 80, 1e-4, 300, 1.5, 8.0),
    Case('1,203 classes, LVIS-like scores', 1203, 1e-4, 300, 2.0, 14.0, True),
    Case('13,204 classes, V3Det-like softmax', 13204, 1e-4, 300, 1.0, 6.0,
         True),
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
    ours()  # not counted: the first call loads things
    mine, other = [], []
    for _ in range(repeats):
        mine += [seconds(ours) for _ in range(OUR_CALLS)]
        if not (quick and case.slow) and sum(other) < BUDGET_S:
            other.append(seconds(theirs))
    if not other:
        notes.append('mmdet skipped (--quick)')
    elif len(other) < repeats:
        notes.append(f'mmdet measured {len(other)} time(s)')
    if other:
        kept, found = (set(results[k][2].tolist()) for k in results)
        notes.append(f'{len(kept - found)} of {len(kept)} entries not '
                     "in mmdet's result")
    return dict(
        case=case.name,
        ours=median(mine) * 1e3,
        theirs=median(other) * 1e3 if other else None,
        ratio=median(other) / median(mine) if other else None,
        unit='ms',
        note=', '.join(notes))


def run(repeats: int = 5, quick: bool = False) -> List[dict]:
    """Measure every case.

    Args:
        repeats (int): Rounds of alternating calls; medians count. At
            13,204 classes one call of mmdet's takes minutes and is made once.
        quick (bool): Leave out mmdet's calls at 1,203 classes and more.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio' (theirs over
        ours), 'unit' and 'note'.
    """
    rows = [measure(case, repeats, quick) for case in CASES]
    for row in rows[2:]:
        row['note'] += (f'; ours takes {row["ours"] / rows[0]["ours"]:.0f} '
                        'times its time at 80 classes')
    return rows
