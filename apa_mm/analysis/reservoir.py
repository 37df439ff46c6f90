"""An even sample of the logits of every class, in bounded memory.

Legend: C classes, R rows, W columns, n rows kept.
"""
import numpy as np
from numpy import ndarray

from apa_mm.utils.checks import check_choice

from .errors import AnalysisError

SAMPLES = ('all', 'own')
#: Rows kept per class and in all; an even choice from there on.
CAPACITY = 20000


class Reservoir:
    """An even sample of rows (n, W) that come in batches, in constant memory.

    Every row of the stream is kept with the same probability (Algorithm R);
    all are kept while there is room.
    """

    def __init__(self, capacity: int, width: int, seed: int = 0) -> None:
        if capacity < 1:
            raise AnalysisError(
                f'capacity must be 1 or more rows, but got {capacity}')
        self.seen = 0
        self.capacity = capacity
        # Most classes stay far below: the system gives a page when written.
        self._rows = np.empty((capacity, width), dtype=np.float32)
        self._random = np.random.default_rng(seed)

    @property
    def rows(self) -> ndarray:
        """ndarray: The rows kept, float32, (min(seen, capacity), W)."""
        return self._rows[:min(self.seen, self.capacity)]

    def update(self, rows: ndarray) -> None:
        """Add rows (n, W)."""
        places = self.seen + np.arange(len(rows))
        late = places >= self.capacity
        # A random place up to its own; of several in one the last one stays.
        places[late] = self._random.integers(0, places[late] + 1)
        inside = places < self.capacity
        self._rows[places[inside]] = rows[inside]
        self.seen += len(rows)


class ClassLogits:
    """The logits of every class from a stream, in bounded memory.

    ``samples`` 'all' keeps each class's logit of every row, 'own' those of
    the rows whose true class it is; ``capacity`` rows, for 'own' per class.
    """

    def __init__(self, num_classes: int, samples: str,
                 capacity: int = CAPACITY) -> None:
        check_choice('samples', samples, SAMPLES)
        self.num_classes, self.own = num_classes, samples == 'own'
        self.stores = [
            Reservoir(capacity, 1, seed) for seed in range(num_classes)
        ] if self.own else [Reservoir(capacity, num_classes)]

    def update(self, logits: ndarray, labels: ndarray) -> None:
        """Add rows: logits (R, C) and true classes (R,)."""
        if not self.own:
            self.stores[0].update(logits)
            return
        for label in np.unique(labels[labels >= 0]):
            self.stores[label].update(logits[labels == label][:, [label]])

    def of(self, label: int) -> ndarray:
        """Return the logits kept of one class, (n,)."""
        if self.own:
            return self.stores[label].rows[:, 0]
        return self.stores[0].rows[:, label]
