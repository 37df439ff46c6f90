"""Find attention gates in a model, listen to them and add up what they say."""
import re
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Callable, Dict, Iterator, List, Optional

import torch
from torch import Tensor, nn

from apa_mm.functional.attention import (GateStats, gate_signal, gate_stats,
                                         gate_sums)

from .activation import APA
from .attention import ChannelAttention, SpatialAttention

#: Attention layers of other libraries, by the name of their class.
_OTHER_ATTENTION = re.compile('SELayer|SEModule|SqueezeExcit|CBAM|SCSE')
#: What they use as gates.
_GATE_CLASSES = ('Sigmoid', 'Hardsigmoid', 'HSigmoid', 'APA')


def find_gates(model: nn.Module) -> Dict[str, nn.Module]:
    """List the gates of a model by name, in module order, each once.

    These are the gates of our attention layers whatever their type, every
    :class:`~apa_mm.layers.APA`, and the sigmoids inside of SE layers of
    mmdet, mmpretrain, torchvision and timm.
    """
    gates: Dict[nn.Module, str] = {}
    for name, module in model.named_modules():
        prefix = f'{name}.' if name else ''
        if isinstance(module, (ChannelAttention, SpatialAttention)):
            gates.setdefault(module.gate, f'{prefix}gate')
        elif isinstance(module, APA):
            gates.setdefault(module, name)
        elif _OTHER_ATTENTION.search(type(module).__name__):
            for inner, child in module.named_modules():
                if type(child).__name__ in _GATE_CLASSES:
                    gates.setdefault(child, prefix + inner)
    return {name: module for module, name in gates.items()}


def is_spatial(output: Tensor) -> bool:
    """Return whether a gate's output weighs places instead of channels."""
    return output.dim() == 4 and output.shape[2] * output.shape[3] > 1


@contextmanager
def record_gates(model: nn.Module, listen: Callable[[str, Tensor], None],
                 gates: Optional[Dict[str, nn.Module]] = None
                 ) -> Iterator[Dict[str, nn.Module]]:
    """Call ``listen(name, output)`` at every pass through a gate.

    The forward hooks change no output and are gone at the end of the block.
    Without ``gates`` these are all of :func:`find_gates`.
    """
    gates = find_gates(model) if gates is None else gates
    with ExitStack() as stack:
        for name, module in gates.items():
            stack.enter_context(
                module.register_forward_hook(partial(_call, name, listen)))
        yield gates


def _call(name: str, listen: Callable, module: nn.Module, inputs: tuple,
          output: Tensor) -> None:
    listen(name, output)  # returning its answer would replace the output


class GateSums:
    """Sums from which the statistics of any number of images follow.

    Per layer (1 + G, 4 + C) in float64: of all images, then of each of
    ``num_groups`` groups, which may overlap.
    """

    def __init__(self, num_groups: int = 0) -> None:
        self.num_groups = num_groups
        self.sums: Dict[str, Tensor] = {}

    def update(self, name: str, values: Tensor,
               members: Optional[Tensor] = None) -> None:
        """Add one batch of gate values (N, C, ...) of the layer ``name``.

        ``members`` tells which group every image is in, bool, (N, G); without
        it the images count among all only.

        Raises:
            ValueError: If a value is outside of [0, 1] or NaN, or
                ``members`` is of another shape.
        """
        if not values.numel():
            self._add(name, torch.zeros(1 + self.num_groups,
                                        4 + values.shape[1]))
            return
        try:
            rows = gate_sums(values)  # (N, 4 + C)
        except ValueError as error:
            raise ValueError(f'{name} gives {error}') from None
        if members is None:
            members = torch.zeros(len(rows), self.num_groups)
        elif members.shape != (len(rows), self.num_groups):
            raise ValueError(
                f'members must have shape ({len(rows)}, {self.num_groups}) '
                f'for the rows of {name}, but has {tuple(members.shape)}')
        groups = members.double().T.cpu() @ rows
        self._add(name, torch.cat([rows.sum(0, keepdim=True), groups]))

    def _add(self, name: str, sums: Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0) + sums.double()

    def merge(self, others: Dict[str, Tensor]) -> None:
        """Add the ``sums`` of another process."""
        for name, sums in others.items():
            self._add(name, sums)

    def result(self) -> Dict[str, List[GateStats]]:
        """Return the statistics by layer: all images first, then G groups."""
        return {name: [gate_stats(row) for row in sums]
                for name, sums in self.sums.items()}

    def signals(self, name: str) -> List[List[float]]:
        """Return the signal of one layer, (1 + G, C); NaN without images."""
        return [gate_signal(row) for row in self.sums[name]]
