"""The best of many scores, in a total order.

Higher scores come first, equal scores by their index. Shapes: N RoIs, C
classes, k entries.
"""
from typing import Optional, Tuple

import torch
from torch import Tensor

#: RoIs per block of the search, and blocks per group that the least score is
#: taken from. Few values are ranked fast, but let more blocks through (1.2
#: million pairs on two cores: 0.8 ms at 16 and 4, 1.5 at 16 and 1, 1.1 at 8
#: and 4).
BLOCK_ROWS = 16
GROUP_BLOCKS = 4
#: The search pays from this many pairs per entry wanted.
PAIRS_PER_ENTRY = 128


def best(scores: Tensor, count: int) -> Tensor:
    """Return the positions of the best ``count`` scores (N,), best first."""
    if 2 * count >= scores.numel():
        return scores.sort(descending=True, stable=True).indices[:count]
    # topk may pick any of several equal scores; take all that reach its least
    # and let the stable sort choose.
    floor = scores.topk(count, sorted=False).values.min()
    chosen = (scores >= floor).nonzero().squeeze(1)
    order = scores[chosen].sort(descending=True, stable=True).indices
    return chosen[order[:count]]


class ScoredPairs:
    """The pairs of RoI and class above a threshold, best first.

    A pair is known by its place ``roi * (C + 1) + class``. Arguments are
    those of :func:`~apa_mm.det.nms.exact_multiclass_nms`; ``final_thr`` is
    for scores times factors, 0 or less for none.
    """

    def __init__(self, multi_scores: Tensor, score_thr: float,
                 score_factors: Optional[Tensor] = None,
                 final_thr: float = 0.0) -> None:
        self.scores = multi_scores
        self.flat = multi_scores.flatten()
        self.score_thr = score_thr
        self.factors = score_factors
        self.final_thr = final_thr
        self._all: Optional[Tuple[Tensor, Tensor]] = None

    def split(self, places: Tensor) -> Tuple[Tensor, Tensor]:
        """Return the RoIs and classes (k,) of places (k,)."""
        rows = places.div(self.scores.size(1), rounding_mode='floor')
        return rows, places - rows * self.scores.size(1)

    def at(self, places: Tensor) -> Tensor:
        """Return the scores (k,), times the factors, at places (k,)."""
        scores = self.flat[places]
        if self.factors is None:
            return scores
        return scores * self.factors.flatten()[self.split(places)[0]]

    def first(self, count: int) -> Tuple[Tensor, bool]:
        """Return the places of the best pairs (0 for all); are there more?"""
        if self._all is None and 0 < count * PAIRS_PER_ENTRY <= len(
                self.scores) * (self.scores.size(1) - 1):
            places = self._search(count)
            if places is not None:
                return places[best(self.at(places), count)], True
        if self._all is None:
            self._all = self._above()
        places, scores = self._all
        count = count if count > 0 else len(places)
        return places[best(scores, count)], count < len(places)

    def _above(self) -> Tuple[Tensor, Tensor]:
        """Return all pairs above the thresholds: ascending places, scores."""
        above = self.scores > self.score_thr
        above[:, -1] = False  # the background
        places = above.flatten().nonzero().squeeze(1)
        scores = self.at(places)
        if self.final_thr > 0:
            again = scores > self.final_thr
            places, scores = places[again], scores[again]
        return places, scores

    def _search(self, count: int) -> Optional[Tensor]:
        """Return ascending places that include the first ``count``.

        A block is one class and ``BLOCK_ROWS`` RoIs, a group some blocks of
        a class. At least ``count`` scores reach the ``count``-th largest of
        the groups' maxima, so the first ``count`` lie in blocks whose maximum
        does. None where this does not settle it: with factors, with NaN, or
        if that value is not above the threshold.
        """
        if self.factors is not None:
            return None
        scores = self.scores[:, :-1]
        maxima = _maxima(scores, BLOCK_ROWS)
        ranked = _maxima(maxima, GROUP_BLOCKS)
        if ranked.numel() < count:
            ranked = maxima
        if ranked.numel() < count:
            return None
        maxima = maxima.flatten()
        floor = ranked.flatten().topk(count, sorted=False).values.min()
        if not floor > max(self.score_thr, self.final_thr):
            return None
        blocks = (maxima >= floor).nonzero()  # (number of blocks, 1)
        starts = blocks.div(scores.size(1), rounding_mode='floor')
        labels = blocks - starts * scores.size(1)
        rows = torch.arange(BLOCK_ROWS, device=scores.device)
        rows = starts * BLOCK_ROWS + rows  # (number of blocks, BLOCK_ROWS)
        inside = rows < len(scores)
        rows = rows.clamp(max=len(scores) - 1)
        places = rows * self.scores.size(1) + labels
        inside &= self.flat[places] >= floor
        return places[inside].sort().values


def _maxima(values: Tensor, rows: int) -> Tensor:
    """Return maxima (ceil(N / rows), C) over each ``rows`` of (N, C)."""
    whole = len(values) // rows * rows
    maxima = values[:whole].unflatten(0, (whole // rows, rows)).amax(1)
    if whole == len(values):
        return maxima
    return torch.cat([maxima, values[whole:].amax(0, keepdim=True)])
