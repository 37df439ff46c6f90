"""Values of kappa and lambda at which AGLU equals a common activation."""
from typing import Callable, Dict, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from apa_mm.functional import aglu
from apa_mm.utils.checks import check_choice

#: AGLU with lambda 1 is off ReLU by at most 0.2785 / kappa: 2.8e-5 here. It
#: moved the logits of a ResNet-50 by 1.6e-4 (their range was 2.2). A larger
#: value is nearer to ReLU, a smaller one leaves more gradient for kappa.
RELU_KAPPA = 1e4

#: Values on which deviations are measured; activations seldom leave them.
_GRID = (-12.0, 12.0)


class Equivalent(NamedTuple):
    """kappa and lambda at which AGLU stands in for an activation.

    ``deviation`` is the largest distance of the two functions on [-12, 12].
    """

    kappa: float
    lambd: float
    deviation: float


#: Activations by the function that they compute (exact class names).
SAME_FUNCTION: Dict[str, str] = {
    'ReLU': 'relu',
    'SiLU': 'silu',
    'Swish': 'silu',
    'SiLUActivation': 'silu',
    'GELU': 'gelu',
    'GELUActivation': 'gelu',
    'NewGELUActivation': 'gelu_tanh',
    'PytorchGELUTanh': 'gelu_tanh',
    'GELUTanh': 'gelu_tanh',
    'FastGELUActivation': 'gelu_tanh',
    'QuickGELU': 'quick_gelu',
    'QuickGELUActivation': 'quick_gelu',
}

_FUNCTIONS: Dict[str, Callable[[Tensor], Tensor]] = {
    'relu': F.relu,
    'silu': F.silu,
    'gelu': F.gelu,
    'gelu_tanh': lambda x: F.gelu(x, approximate='tanh'),
    'quick_gelu': lambda x: x * torch.sigmoid(1.702 * x),
}


def kind_of(module: nn.Module) -> Optional[str]:
    """Return which function an activation module computes, or None.

    Subclasses do not count: they may compute something else.
    """
    kind = SAME_FUNCTION.get(type(module).__name__)
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
    check_choice('kind', kind, tuple(_FUNCTIONS))
    if not relu_kappa > 0:
        raise ValueError(f'relu_kappa must be positive, but got {relu_kappa};'
                         f' the default is {RELU_KAPPA:g}')
    kappa = {'relu': relu_kappa, 'silu': 1.0}.get(kind, 1.702)
    even = torch.linspace(*_GRID, 20001, dtype=torch.float64)
    # A steep kappa differs from ReLU only within a few 1 / kappa of zero.
    near = torch.linspace(-20, 20, 2001, dtype=torch.float64) / kappa
    x = torch.cat([even, near.clamp(*_GRID)])
    gap = aglu(x, kappa=kappa, lambd=1.0) - _FUNCTIONS[kind](x)
    return Equivalent(kappa, 1.0, gap.abs().max().item())
