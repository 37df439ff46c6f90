"""Starting values of kappa and lambda for networks that have none."""
import math
from typing import Dict, Iterator, Mapping, NamedTuple, Tuple

import torch
from torch import Tensor

from apa_mm.functional import aglu
from apa_mm.layers.activation import LAMBDA_FLOOR
from apa_mm.layers.pairs import parameter_pairs
from apa_mm.surgery.equivalents import RELU_KAPPA, equivalent_of
from apa_mm.utils.checks import check_choice
from apa_mm.weights import CheckpointError
from apa_mm.weights.errors import require

#: The paper's ranges for units, and for the gates of long-tailed data.
_UNIT = dict(kappa=(1.0, 1.3), lambd=(0.0, 1.0))
_GATE = dict(kappa=(-1.0, 0.0), lambd=(0.0, 1.0))
#: The authors' classification code: max(lambda, 0) + 1e-8.
SHIFT = 1e-8


class Start(NamedTuple):
    """How kappa and lambda begin where the source has none.

    ``init`` is 'equivalent' to compute the source's function, 'random' for the
    paper's ranges, 'plain' to add none. ``act`` is the activation of the
    source's units, which names do not tell: 'relu', 'silu' or 'gelu'.
    """

    init: str = 'equivalent'
    act: str = 'relu'
    relu_kappa: float = RELU_KAPPA  # stands for ReLU
    seed: int = 0  # of 'random'


def starting_values(shapes: Mapping[str, Tuple[int, ...]],
                    start: Start) -> Tuple[Dict[str, Tensor], str]:
    """Make the kappa and lambda that a source lacks, and a note on them."""
    require(0 < start.relu_kappa < math.inf, 'relu_kappa must be a finite '
            f'number above 0, but got {start.relu_kappa}')
    try:
        check_choice('init', start.init, ('equivalent', 'random', 'plain'))
        unit = equivalent_of(start.act, start.relu_kappa)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    random = start.init == 'random'
    generator = torch.Generator().manual_seed(start.seed)
    values = {}
    for name, shape in shapes.items():
        leaf, gate = name.rpartition('.')[2], '.gate.' in name
        if random:
            low, high = (_GATE if gate else _UNIT)[leaf]
            values[name] = low + (high - low) * torch.rand(
                shape, generator=generator)
        else:
            own = leaf == 'kappa' and not gate
            values[name] = torch.full(shape, unit.kappa if own else 1.0)
    return values, (
        "kappa and lambda are drawn from the paper's ranges with seed "
        f'{start.seed}; the network does not compute what it did'
        if random else
        f'units start as {start.act} (kappa={unit.kappa:g}, '
        f'lambda={unit.lambd:g}), measured at most {unit.deviation:.2e} off '
        'on [-12, 12]; gates start as the sigmoid (1, 1), exactly')


def clamp_deviation(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Say what our clamp of lambda changes in the authors' classifiers.

    Their units use max(lambda, 0) + 1e-8, ours max(lambda, ``lambd_min``).
    """
    units = [p for p in parameter_pairs(tensors) if p.kind == 'unit']
    low = [unit for unit in units if (unit.lambd < LAMBDA_FLOOR).any()]
    if not low:
        return
    worst = 0.0
    for unit in low:
        kappa, lambd = (
            v.double()[:, None] for v in (unit.kappa, unit.lambd))  # (C, 1)
        x = torch.linspace(-12, 12, 2401).double().expand(len(kappa), -1)
        theirs = aglu(x, kappa=kappa, lambd=lambd.clamp(min=0) + SHIFT)
        ours = aglu(x, kappa=kappa, lambd=lambd.clamp(min=LAMBDA_FLOOR))
        worst = max(worst, (theirs - ours).abs().max().item())
    dead = sum(unit.dead('shifted') for unit in low)
    yield (
        f'{len(low)} of {len(units)} units have lambda below '
        f'{LAMBDA_FLOOR:g} ({dead} at or below 0), where the source clamps at '
        f'{SHIFT:g} and apa_mm at {LAMBDA_FLOOR:g}: at most {worst:.1e} apart '
        "on [-12, 12]; act_cfg=dict(type='apa_mm.AGLU', lambd_min=1e-8) "
        'removes the difference')
