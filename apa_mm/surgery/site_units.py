"""One unit for each place at which blocks call an activation."""
from copy import deepcopy
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

from torch import Tensor, nn

from apa_mm.layers.activation import AGLU

from .call_sites import CONTAINERS, CallSites, find_call_sites

__all__ = [
    'Place', 'SharedUnit', 'SiteUnits', 'find_places', 'find_shared_units',
    'put_units', 'split_shared_units'
]


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
        """Put hooks on the layers of the block that has these call sites."""
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


class Place(NamedTuple):
    """A module in a block, and its dotted name in the model."""

    name: str
    block: nn.Module
    attribute: str
    module: nn.Module


def find_places(model: nn.Module) -> Iterator[Place]:
    """Yield every module below a model, as often as it is registered."""
    for prefix, block in model.named_modules():
        # named_children would leave out a module registered twice.
        for name, child in block._modules.items():
            if child is not None:
                full = f'{prefix}.{name}' if prefix else name
                yield Place(full, block, name, child)


def put_units(place: Place, units: List[nn.Module], sites: CallSites) -> None:
    """Put one unit for each call where a block has its activation."""
    new = units[0] if len(units) == 1 else SiteUnits(units)
    new.train(place.module.training)
    setattr(place.block, place.attribute, new)
    if len(units) > 1:
        new.listen(place.block, sites)


class SharedUnit(NamedTuple):
    """One AGLU that ``sites`` places call, under ``names`` in the model.

    ``can_split``: whether the source of its blocks tells the places apart.
    """

    names: List[str]
    sites: int
    can_split: bool

    def __str__(self) -> str:
        mend = (
            'apa_mm.surgery.split_shared_units(model) gives each its own, and '
            "so does type='apa_mm.ReplacedActivations' in place of act_cfg"
            if self.can_split else 'the source of its block does not tell '
            'them apart, so that it stays one unit')
        return (f'{self.names[0]} is one AGLU that {self.sites} places call, '
                f'which share kappa and lambda; {mend}')


def find_shared_units(model: nn.Module) -> List[SharedUnit]:
    """List the AGLU units that more than one place calls, in module order.

    ``act_cfg`` makes such units where a block builds one activation and
    calls it several times, as the layers of MMPretrain's DenseNet do. A unit
    whose calls cannot be counted, as in a loop, is left out.

    Example:
        >>> unit = AGLU()
        >>> shared, = find_shared_units(nn.Sequential(unit, unit))
        >>> shared.names, shared.sites
        (['0', '1'], 2)
    """
    return [shared for shared, _ in _shared_units(model)]


def split_shared_units(model: nn.Module) -> List[SharedUnit]:
    """Give each place that calls a shared unit a copy of it, in place.

    Call it before weights are loaded and the optimizer is built. Returns what
    was split.
    """
    done = []
    for shared, callers in _shared_units(model):
        if not shared.can_split:
            continue
        unit = callers[0][0].module
        # The unit itself stays at the first place: a name that no place
        # calls would otherwise keep a unit without gradient.
        units = iter([unit] + [deepcopy(unit) for _ in range(1, shared.sites)])
        for place, sites in callers:
            put_units(place, [next(units) for _ in range(sites.count)], sites)
        done.append(shared)
    return done


_Callers = List[Tuple[Place, CallSites]]


def _shared_units(model: nn.Module) -> List[Tuple[SharedUnit, _Callers]]:
    callers: Dict[nn.Module, _Callers] = {}
    for place in find_places(model):
        if type(place.module) is not AGLU:
            continue
        sites = CallSites(1) if isinstance(place.block, CONTAINERS) else (
            find_call_sites(place.block, place.attribute))
        if sites.count:
            callers.setdefault(place.module, []).append((place, sites))
    units = [(SharedUnit([place.name for place, _ in group],
                         sum(sites.count for _, sites in group),
                         not any(sites.count > 1 and sites.unmarked
                                 for _, sites in group)), group)
             for group in callers.values()]
    return [(unit, group) for unit, group in units if unit.sites > 1]
