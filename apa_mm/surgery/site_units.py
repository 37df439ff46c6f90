"""One unit for each place at which a block calls its activation."""
from typing import List, Sequence

from torch import Tensor, nn

from .call_sites import CallSites

__all__ = ['SiteUnits']


class SiteUnits(nn.ModuleList):
    """Stands where a block's shared activation was; holds a unit per call.

    The layer that runs before a call tells which one it is: in a ResNet
    block the first unit comes after ``conv1`` and ``bn1``, the second after
    ``conv2`` and ``bn2``. Forward hooks on these layers leave the number of
    the unit, which the call takes away, so that nothing is counted over a
    pass: a block may be called several times, be recomputed by gradient
    checkpointing, copied, pickled and compiled.

    Args:
        units (Sequence[nn.Module]): One for each call, in their order.

    Raises:
        RuntimeError: In ``forward``, if no layer of the block has run before
            the call, as in a graph traced by ``torch.fx``.
    """

    def __init__(self, units: Sequence[nn.Module]) -> None:
        super().__init__(units)
        self._next = -1
        self._chained: frozenset = frozenset()
        self._handles: List[object] = []

    def listen(self, block: nn.Module, sites: CallSites) -> None:
        """Put the hooks on the layers of the block.

        Args:
            block (nn.Module): The block that calls this module.
            sites (CallSites): Its calls, each with a mark or chained.
        """
        self._chained = sites.chained
        # Handles are kept: they reserve their numbers when unpickled.
        self._handles = [
            block.get_submodule(name).register_forward_hook(
                _Mark(self, number))
            for name, number in sites.marks.items()
        ]
        self._handles.append(
            block.register_forward_pre_hook(_Mark(self, 0)))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit of this call."""
        number = self._next
        if number < 0:
            raise RuntimeError(
                f'cannot tell which of {len(self)} units is called, since no '
                'layer of the block has run before; run the block as a whole, '
                'or let its calls share one unit by shared=[...] of '
                'replace_activations')
        self._next = number + 1 if number + 1 in self._chained else -1
        return self[number](x)


class _Mark:
    """A hook that leaves the number of the unit to use next."""

    def __init__(self, units: SiteUnits, number: int) -> None:
        self.units, self.number = units, number

    def __call__(self, *args: object) -> None:
        self.units._next = self.number
