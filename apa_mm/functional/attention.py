"""Statistics of attention gates. Shapes: N images, C channels, P places."""
import math
from typing import List, NamedTuple

import torch
from torch import Tensor

#: Sums of g - 1/2 keep the variance of gates near 1/2 free of cancellation.
SHIFT = 0.5


class GateStats(NamedTuple):
    """What one layer's gates do on one group of images (Fig. 2 and 5).

    ``mean`` and ``entropy`` (bits), over all values, lie in [0, 1].
    ``variance``, in [0, 0.25], is that of :func:`gate_signal` over channels,
    or for a spatial gate, with its one channel and maps of any size, that
    over the places of an image, averaged over images. Without images all
    three are NaN.
    """

    images: int
    values: int
    mean: float
    variance: float
    entropy: float


def binary_entropy(values: Tensor) -> Tensor:
    r"""Return :math:`-g \log_2 g - (1 - g) \log_2 (1 - g)` of gate values g.

    Eq. 4: the entropy in bits of a switch that is open with probability g;
    NaN outside [0, 1].
    """
    g = values.double()
    nats = torch.xlogy(g, g) + torch.special.xlog1py(1 - g, -g)
    # Not -nats: a shut gate has the entropy 0.0, not -0.0.
    return (0 - nats) / math.log(2)


def gate_sums(values: Tensor) -> Tensor:
    """Return what can be added up over images to get :func:`gate_stats`.

    Of gate values (N, C) or (N, C, ...), float64, (N, 4 + C): image, values,
    sum of entropies, variance over places, channel means less :data:`SHIFT`.

    Raises:
        ValueError: If a value is outside of [0, 1] or NaN.
    """
    values = values.detach()
    low, high = (float(v) for v in values.aminmax())
    if not (low >= 0 and high <= 1):  # NaN fails it too
        raise ValueError(
            f'values in [{low:g}, {high:g}], but entropy is defined for gates '
            'in [0, 1]; take a checkpoint without NaN and with sigmoid-like '
            'gates')
    g = values.double().reshape(*values.shape[:2], -1)  # (N, C, P)
    ones = torch.ones_like(g[:, 0, 0])
    columns = torch.stack(
        [ones, ones * g[0].numel(), binary_entropy(g).sum(dim=(1, 2)),
         g.var(dim=2, correction=0).mean(1)], dim=1)
    return torch.cat([columns, (g - SHIFT).mean(2)], dim=1).cpu()


def gate_signal(sums: Tensor) -> List[float]:
    """Return each channel's mean over all images, from sums (4 + C,)."""
    return (sums[4:] / sums[0] + SHIFT).tolist()


def gate_stats(sums: Tensor) -> GateStats:
    """Return the statistics of rows of :func:`gate_sums` added up, (4 + C,).

    Example:
        >>> rows = gate_sums(torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
        >>> gate_stats(rows.sum(0))
        GateStats(images=2, values=4, mean=0.5, variance=0.0625, entropy=0.5)
    """
    images, values, entropy, within = sums[:4].tolist()
    if not images:
        return GateStats(0, 0, math.nan, math.nan, math.nan)
    signal = sums[4:] / images
    variance = within / images if len(signal) == 1 else float(
        signal.var(correction=0))
    return GateStats(int(images), int(values), float(signal.mean()) + SHIFT,
                     variance, entropy / values)
