r"""Entropy, variance and mean of attention gates (Eq. 4, Fig. 2 and 5).

A gate value g in [0, 1] says how much of a channel or a place passes. Its
entropy is that of a switch which is open with probability g,

.. math:: H(g) = -g \log_2 g - (1 - g) \log_2 (1 - g),

averaged over the values of a layer. With logarithms to base 2 it lies in
[0, 1] whatever the number of channels, so that layers can be compared: 0 if
every gate is shut or open, 1 if all stand at 1/2.

Legend: N images, G groups of images.
"""
import math
from typing import Dict, NamedTuple, Optional

import torch
from torch import Tensor

from .errors import AnalysisError

__all__ = ['GateStats', 'GateSums', 'binary_entropy']

#: Sums are taken of g - 1/2, which keeps the variance of gates near 1/2, the
#: usual place, free of cancellation.
SHIFT = 0.5


def binary_entropy(values: Tensor) -> Tensor:
    """Return the entropy of every gate value in bits (Eq. 4, base 2).

    Args:
        values (Tensor): Gate values in [0, 1], any shape.

    Returns:
        Tensor: In [0, 1], float64, the same shape; 0 at 0 and at 1. Outside
        of [0, 1] it is NaN.

    Example:
        >>> binary_entropy(torch.tensor([0.0, 0.25, 0.5, 1.0])).tolist()
        [0.0, 0.8112781244591328, 1.0, 0.0]
    """
    g = values.double()
    nats = torch.xlogy(g, g) + torch.special.xlog1py(1 - g, -g)
    # Not -nats: a shut gate has the entropy 0.0, not -0.0.
    return (0 - nats) / math.log(2)


class GateStats(NamedTuple):
    """What one layer's gates do on one group of images.

    Attributes:
        images (int): Images (or rows) that were seen.
        values (int): Gate values that were seen.
        mean (float): Mean gate value in [0, 1]; NaN without images.
        variance (float): Variance over images and channels (divisor: the
            number of values) in [0, 0.25]; NaN without images.
        entropy (float): Mean binary entropy in [0, 1], bits.
    """

    images: int
    values: int
    mean: float
    variance: float
    entropy: float


class GateSums:
    """Sums from which the statistics of any number of images follow.

    Memory does not grow with the number of images: five float64 numbers for
    each layer and group.

    Args:
        num_groups (int): G. An image may be in several groups or in none;
            statistics of all images are kept beside those of the groups.

    Example:
        >>> sums = GateSums()
        >>> sums.update('gate', torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
        >>> sums.result()['gate'][0]
        GateStats(images=2, values=4, mean=0.5, variance=0.125, entropy=0.5)
    """

    def __init__(self, num_groups: int = 0) -> None:
        self.num_groups = num_groups
        self.sums: Dict[str, Tensor] = {}

    def update(self, name: str, values: Tensor,
               members: Optional[Tensor] = None) -> None:
        """Add one batch of gate values of one layer.

        Args:
            name (str): The layer.
            values (Tensor): Gate values in [0, 1], (N, ...).
            members (Tensor, optional): Which group every image is in, bool,
                (N, G); None counts the images among all only.

        Raises:
            AnalysisError: If a value is outside of [0, 1] or NaN, or
                ``members`` is of another shape.
        """
        values = values.detach()
        sums = self.sums.setdefault(
            name, torch.zeros(1 + self.num_groups, 5, dtype=torch.float64))
        if values.numel() == 0:
            return
        low, high = (float(v) for v in values.aminmax())
        # Written so that NaN fails it.
        if not (low >= 0 and high <= 1):
            raise AnalysisError(
                f'{name} gives values in [{low:g}, {high:g}], but entropy is '
                'defined for gates in [0, 1]; analyse a checkpoint without '
                'NaN and with sigmoid-like gates')
        g = values.flatten(1).double()  # (N, values per image)
        shifted = g - SHIFT
        rows = torch.stack([
            torch.ones_like(g[:, 0]),
            torch.full_like(g[:, 0], g.shape[1]),
            shifted.sum(1), (shifted * shifted).sum(1),
            binary_entropy(g).sum(1)
        ], dim=1).cpu()  # (N, 5)
        sums[0] += rows.sum(0)
        if members is not None:
            if members.shape != (len(rows), self.num_groups):
                raise AnalysisError(
                    f'members must have shape ({len(rows)}, '
                    f'{self.num_groups}) for the rows of {name}, but has '
                    f'{tuple(members.shape)}')
            sums[1:] += members.double().T.cpu() @ rows

    def result(self) -> Dict[str, list]:
        """Return the statistics.

        Returns:
            dict[str, list[GateStats]]: By layer in the order of their first
            update: all images first, then the G groups.
        """
        return {
            name: [_stats(row) for row in sums.tolist()]
            for name, sums in self.sums.items()
        }


def _stats(row: list) -> GateStats:
    images, values, first, second, entropy = row
    if not values:
        return GateStats(int(images), 0, math.nan, math.nan, math.nan)
    mean = first / values
    return GateStats(
        int(images), int(values), mean + SHIFT,
        max(second / values - mean * mean, 0.), entropy / values)
