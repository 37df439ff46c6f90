r"""Are the logits of a class logistic or Gumbel distributed (Fig. 1)?

Both distributions are fitted by maximum likelihood. The Kolmogorov-Smirnov
distance of sorted values :math:`x_1 \le \dots \le x_n` to a distribution
function F is

.. math:: D = \max_i \max(i / n - F(x_i), F(x_i) - (i - 1) / n).

The logistic distribution function is the sigmoid, the Gumbel one
:math:`\exp(-\exp(-x))` is APA at lambda = 0: the nearer one suits the logits.

Legend: n values of one class, W columns.
"""
import math
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from .errors import AnalysisError

__all__ = ['LogitFit', 'Reservoir', 'fit_logits', 'ks_distance']


class LogitFit(NamedTuple):
    """Two distributions fitted to the logits of one class.

    Attributes:
        count (int): n.
        mean (float): Mean.
        std (float): Standard deviation, divisor n.
        skewness (float): Third standardised moment; 0 for the logistic,
            1.1395 for the Gumbel distribution.
        logistic (tuple[float]): Location and scale.
        gumbel (tuple[float]): Location and scale.
        ks_logistic (float): Distance to the logistic distribution, in [0, 1].
        ks_gumbel (float): Distance to the Gumbel distribution, in [0, 1].
    """

    count: int
    mean: float
    std: float
    skewness: float
    logistic: tuple
    gumbel: tuple
    ks_logistic: float
    ks_gumbel: float

    @property
    def nearer_gumbel(self) -> bool:
        """bool: Whether the Gumbel distribution is nearer."""
        return self.ks_gumbel < self.ks_logistic


def ks_distance(values: ndarray, probabilities: ndarray) -> float:
    """Return the Kolmogorov-Smirnov distance of values to a distribution.

    Args:
        values (ndarray): (n,), in any order.
        probabilities (ndarray): Its distribution function at the values, (n,).

    Returns:
        float: In [1 / (2 n), 1].

    Example:
        >>> ks_distance(np.array([0.2, 0.6]), np.array([0.2, 0.6]))
        0.4
    """
    order = np.sort(np.asarray(probabilities)[np.argsort(values)])
    size = len(order)
    steps = np.arange(size + 1) / size
    return float(max((steps[1:] - order).max(), (order - steps[:-1]).max()))


def fit_logits(values: ndarray) -> LogitFit:
    """Fit a logistic and a Gumbel distribution to the logits of one class.

    Args:
        values (ndarray): (n,), at least 2 different ones.

    Returns:
        LogitFit: Both fits, their distances, mean and skewness.

    Raises:
        AnalysisError: If there are fewer than 2 different values, or one is
            NaN or infinite.
        ImportError: If scipy is not installed.

    Example:
        >>> x = np.linspace(0.0005, 0.9995, 1000)
        >>> fit = fit_logits(-np.log(-np.log(x)))
        >>> fit.nearer_gumbel, round(fit.ks_gumbel, 3)
        (True, 0.001)
    """
    from scipy import stats
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise AnalysisError(
            f'{int((~np.isfinite(values)).sum())} of {values.size} logits are '
            'NaN or infinite, but finite ones are needed; look at the weights '
            'with tools/inspect_checkpoint.py')
    if len(values) < 2 or np.ptp(values) == 0:
        raise AnalysisError(
            'fitting a distribution needs at least 2 different logits, but '
            f'got {len(values)} of value {values[:1]}; analyse more images')
    logistic = stats.logistic.fit(values)
    gumbel = stats.gumbel_r.fit(values)
    return LogitFit(
        len(values), float(values.mean()), float(values.std()),
        float(stats.skew(values)), tuple(map(float, logistic)),
        tuple(map(float, gumbel)),
        ks_distance(values, stats.logistic.cdf(values, *logistic)),
        ks_distance(values, stats.gumbel_r.cdf(values, *gumbel)))


class Reservoir:
    """An even sample of rows that come in batches, in constant memory.

    Every row of the stream is kept with the same probability (Algorithm R);
    all are kept while there is room.

    Args:
        capacity (int): Rows to keep at most.
        width (int): W.
        seed (int): Seed of the choice.

    Example:
        >>> kept = Reservoir(capacity=3, width=1)
        >>> kept.update(np.arange(2.)[:, None])
        >>> kept.rows.ravel().tolist(), kept.seen
        ([0.0, 1.0], 2)
    """

    def __init__(self, capacity: int, width: int, seed: int = 0) -> None:
        if capacity < 1:
            raise AnalysisError(
                f'capacity must be 1 or more rows, but got {capacity}')
        self.seen = 0
        self.capacity = capacity
        self._rows = np.empty((0, width), dtype=np.float32)
        self._random = np.random.default_rng(seed)

    @property
    def rows(self) -> ndarray:
        """ndarray: The rows kept, float32, (min(seen, capacity), W)."""
        return self._rows[:min(self.seen, self.capacity)]

    def update(self, rows: ndarray) -> None:
        """Add rows (n, W)."""
        room = max(self.capacity - self.seen, 0)
        first, rest = rows[:room], rows[room:]
        if len(first):
            self._grow(self.seen + len(first))
            self._rows[self.seen:self.seen + len(first)] = first
            self.seen += len(first)
        if len(rest):
            # Row number m of the stream takes a random place below m, if
            # that is in the reservoir; of several the last one stays.
            places = self._random.integers(
                0, np.arange(self.seen + 1, self.seen + len(rest) + 1))
            inside = places < self.capacity
            self._rows[places[inside]] = rest[inside]
            self.seen += len(rest)

    def _grow(self, size: int) -> None:
        """Double the store as needed; most classes stay far below."""
        if size > len(self._rows):
            larger = min(max(size, 2 * len(self._rows)), self.capacity)
            rows = np.full((larger, self._rows.shape[1]), math.nan,
                           dtype=np.float32)
            rows[:len(self._rows)] = self._rows
            self._rows = rows
