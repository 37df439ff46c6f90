"""Values of kappa and lambda at which AGLU equals a common activation."""
from functools import partial
from typing import Dict, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import nn

from apa_mm.functional import aglu
from apa_mm.utils.checks import check_choice

#: AGLU with lambda 1 is off ReLU by at most 0.2785 / kappa: 2.8e-5 here. A
#: larger value is nearer to ReLU, a smaller one leaves kappa more gradient.
RELU_KAPPA = 1e4


class Equivalent(NamedTuple):
    """kappa and lambda at which AGLU stands in for an activation.

    ``deviation`` is the largest distance of the two functions on [-12, 12],
    which activations seldom leave.
    """

    kappa: float
    lambd: float
    deviation: float


#: Kind -> the function, and the exact names of classes that compute it.
_KINDS: Dict[str, tuple] = {
    'relu': (F.relu, 'ReLU'),
    'silu': (F.silu, 'SiLU', 'Swish', 'SiLUActivation'),
    'gelu': (F.gelu, 'GELU', 'GELUActivation'),
    'gelu_tanh': (partial(F.gelu, approximate='tanh'), 'NewGELUActivation',
                  'PytorchGELUTanh', 'GELUTanh', 'FastGELUActivation'),
    'quick_gelu': (lambda x: x * torch.sigmoid(1.702 * x), 'QuickGELU',
                   'QuickGELUActivation'),
}
_KIND_OF = {name: kind for kind, (_, *names) in _KINDS.items()
            for name in names}


def kind_of(module: nn.Module) -> Optional[str]:
    """Return which function an activation module computes, or None.

    Subclasses do not count: they may compute something else.
    """
    kind = _KIND_OF.get(type(module).__name__)
    if kind == 'gelu' and getattr(module, 'approximate', 'none') == 'tanh':
        return 'gelu_tanh'
    return kind


def equivalent_of(kind: str, relu_kappa: float = RELU_KAPPA) -> Equivalent:
    """Return the parameters at which AGLU computes an activation.

    'silu' is ``kappa=1, lambd=1`` exactly; 'gelu', 'gelu_tanh' and
    'quick_gelu' have the sigmoid form ``kappa=1.702, lambd=1``, at most 0.021
    away from the exact GELU; 'relu' is the limit of a large kappa, here
    ``relu_kappa``, positive.

    Raises:
        ValueError: If the kind is unknown or ``relu_kappa`` not positive.
    """
    check_choice('kind', kind, tuple(_KINDS))
    if not relu_kappa > 0:
        raise ValueError(f'relu_kappa must be positive, but got {relu_kappa};'
                         f' the default is {RELU_KAPPA:g}')
    kappa = {'relu': relu_kappa, 'silu': 1.0}.get(kind, 1.702)
    even = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    # A steep kappa differs from ReLU only within a few 1 / kappa of zero.
    near = torch.linspace(-20, 20, 2001, dtype=torch.float64) / kappa
    x = torch.cat([even, near.clamp(-12, 12)])
    gap = aglu(x, kappa=kappa, lambd=1.0) - _KINDS[kind][0](x)
    return Equivalent(kappa, 1.0, gap.abs().max().item())
