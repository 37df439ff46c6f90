"""Find attention gates in a model and listen to them."""
import re
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Callable, Dict, Iterator, Optional

from torch import Tensor, nn

from apa_mm.layers import AGLU, APA, ChannelAttention, SpatialAttention

from .errors import AnalysisError

__all__ = ['find_gates', 'is_spatial', 'record_gates']

#: Attention layers of other libraries, by the name of their class.
_OTHER_ATTENTION = re.compile('SELayer|SEModule|SqueezeExcit|CBAM|SCSE')
#: What they use as gates.
_GATE_CLASSES = ('Sigmoid', 'Hardsigmoid', 'HSigmoid', 'APA')


def find_gates(model: nn.Module) -> Dict[str, nn.Module]:
    """List the gates of a model in module order.

    These are the gates of our SE, CBAM and spatial attention whatever their
    type, every :class:`~apa_mm.layers.APA`, and the sigmoids inside of SE
    layers of mmdet, mmpretrain, torchvision and timm.

    Args:
        model (nn.Module): Any model.

    Returns:
        dict[str, nn.Module]: Gates by name, each module once.

    Example:
        >>> model = nn.Sequential(ChannelAttention(32), SpatialAttention())
        >>> list(find_gates(model))
        ['0.gate', '1.gate']
    """
    found = []
    for name, module in model.named_modules():
        prefix = f'{name}.' if name else ''
        if isinstance(module, (ChannelAttention, SpatialAttention)):
            found.append((f'{prefix}gate', module.gate))
        elif isinstance(module, APA):
            found.append((name, module))
        elif _OTHER_ATTENTION.search(type(module).__name__):
            found += [(prefix + inner, child)
                      for inner, child in module.named_modules()
                      if type(child).__name__ in _GATE_CLASSES]
    gates: Dict[str, nn.Module] = {}
    seen = set()
    for name, module in found:
        if id(module) not in seen:
            seen.add(id(module))
            gates[name] = module
    return gates


def is_spatial(output: Tensor) -> bool:
    """Return whether a gate's output weighs places instead of channels."""
    return output.dim() == 4 and output.shape[2] * output.shape[3] > 1


@contextmanager
def record_gates(
        model: nn.Module,
        listen: Callable[[str, Tensor], None],
        gates: Optional[Dict[str, nn.Module]] = None
) -> Iterator[Dict[str, nn.Module]]:
    """Call ``listen(name, output)`` at every pass through a gate.

    Works by forward hooks that change nothing: the model's outputs are the
    same bit by bit, and the hooks are gone at the end of the block, also
    when an exception ends it.

    Args:
        model (nn.Module): Any model.
        listen (Callable): Gets the gate's name and its output, (N, ...).
        gates (dict[str, nn.Module], optional): Which gates; None for those
            of :func:`find_gates`.

    Yields:
        dict[str, nn.Module]: The gates by name.

    Raises:
        AnalysisError: If there is no gate.

    Example:
        >>> import torch
        >>> layer = ChannelAttention(32)
        >>> with record_gates(layer, lambda name, out: print(out.shape)):
        ...     y = layer(torch.rand(2, 32, 4, 4))
        torch.Size([2, 32])
    """
    gates = find_gates(model) if gates is None else gates
    if not gates:
        raise AnalysisError(_no_gates(model))
    with ExitStack() as stack:
        for name, module in gates.items():
            handle = module.register_forward_hook(partial(_call, name, listen))
            stack.callback(handle.remove)
        yield gates


def _call(name: str, listen: Callable, module: nn.Module, inputs: tuple,
          output: Tensor) -> None:
    listen(name, output)


def _no_gates(model: nn.Module) -> str:
    others = ['logits', 'collapse', 'calibration', 'gradcam']
    if any(isinstance(module, (APA, AGLU)) for module in model.modules()):
        others.insert(0, 'parameters')
    return (f'{type(model).__name__} has no attention gate, but SE, CBAM or '
            'spatial attention was expected; of this model '
            f'{", ".join(others)} can be analysed')
