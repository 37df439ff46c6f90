"""Starting values of kappa and lambda for networks that have none."""
import math
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from apa_mm.functional import aglu
from apa_mm.layers.activation import LAMBDA_FLOOR
from apa_mm.surgery.equivalents import RELU_KAPPA, equivalent_of
from apa_mm.utils.checks import check_choice
from apa_mm.weights import CheckpointError

__all__ = ['INITS', 'Start', 'clamp_deviation', 'starting_values']

INITS = ('equivalent', 'random', 'plain')
#: The paper's ranges for units, and for the gates of long-tailed data.
UNIT_RANGES = ((1.0, 1.3), (0.0, 1.0))
GATE_RANGES = ((-1.0, 0.0), (0.0, 1.0))
#: The authors' classification code: max(lambda, 0) + 1e-8.
SHIFT = 1e-8


class Start(NamedTuple):
    """How kappa and lambda begin where the source has none.

    Attributes:
        init (str): 'equivalent' to compute the source's function, 'random'
            for the paper's ranges, 'plain' to add none.
        act (str): Activation of the source's units, which names do not tell:
            'relu', 'silu' or 'gelu'.
        relu_kappa (float): kappa that stands for ReLU.
        seed (int): Seed of 'random'.
    """

    init: str = 'equivalent'
    act: str = 'relu'
    relu_kappa: float = RELU_KAPPA
    seed: int = 0


def starting_values(names: Dict[str, Tuple[int, ...]],
                    start: Start) -> Tuple[Dict[str, Tensor], List[str]]:
    """Make the kappa and lambda that a source lacks."""
    if not 0 < start.relu_kappa < math.inf:
        raise CheckpointError('relu_kappa must be a finite number above 0, '
                              f'but got {start.relu_kappa}')
    try:
        check_choice('init', start.init, INITS)
        unit = equivalent_of(start.act, start.relu_kappa)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    if start.init == 'random':
        generator = torch.Generator().manual_seed(start.seed)
        values = {
            name: _draw(name, shape, generator)
            for name, shape in names.items()
        }
        return values, [
            'kappa and lambda are drawn from the paper\'s ranges with seed '
            f'{start.seed}; the network does not compute what it did'
        ]
    values = {}
    for name, shape in names.items():
        value = 1.0
        if name.endswith('kappa') and not _is_gate(name):
            value = unit.kappa
        values[name] = torch.full(shape, value)
    return values, [
        f'units start as {start.act} (kappa={unit.kappa:g}, '
        f'lambda={unit.lambd:g}), measured at most {unit.deviation:.2e} off '
        'on [-12, 12]; gates start as the sigmoid (1, 1), exactly'
    ]


def _is_gate(name: str) -> bool:
    return '.gate.' in name


def _draw(name: str, shape: Tuple[int, ...],
          generator: torch.Generator) -> Tensor:
    kappa, lambd = GATE_RANGES if _is_gate(name) else UNIT_RANGES
    low, high = kappa if name.endswith('kappa') else lambd
    return low + (high - low) * torch.rand(shape, generator=generator)


def clamp_deviation(pairs: Dict[str, Tuple[Tensor, Tensor]],
                    floor: float = LAMBDA_FLOOR) -> Optional[str]:
    """Say what our clamp of lambda changes in the authors' classifiers.

    Their units use max(lambda, 0) + 1e-8, ours max(lambda, ``lambd_min``).
    """
    low = {
        name: pair
        for name, pair in pairs.items() if (pair[1] < floor).any()
    }
    if not low:
        return None
    worst = 0.0
    for pair in low.values():
        kappa, lambd = (v.double().reshape(-1, 1) for v in pair)  # (C, 1)
        x = torch.linspace(-12, 12, 2401).double().expand(len(kappa), -1)
        theirs = aglu(x, kappa=kappa, lambd=lambd.clamp(min=0) + SHIFT)
        ours = aglu(x, kappa=kappa, lambd=lambd.clamp(min=floor))
        worst = max(worst, (theirs - ours).abs().max().item())
    dead = sum(int((pair[1] <= 0).any()) for pair in low.values())
    return (
        f'{len(low)} of {len(pairs)} units have lambda below {floor:g} '
        f'({dead} at or below 0), where the source clamps at {SHIFT:g} and '
        f'apa_mm at {floor:g}: at most {worst:.1e} apart on [-12, 12]; '
        "act_cfg=dict(type='apa_mm.AGLU', lambd_min=1e-8) removes the "
        'difference')
