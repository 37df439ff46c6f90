"""One unit for each place at which blocks call an activation."""
from copy import deepcopy
from typing import (Callable, Dict, Iterator, List, MutableMapping,
                    NamedTuple, Tuple)
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from torch.fx import Graph, Proxy

from apa_mm.layers.activation import AGLU

from .call_sites import CallSites, find_call_sites


class SiteUnits(nn.ModuleList):
    """Stands where a block's shared activation was; holds a unit per call.

    The layer that runs before a call tells which one it is: in a ResNet
    block the first unit comes after ``conv1`` and ``bn1``, the second after
    ``conv2`` and ``bn2``. Forward hooks on these layers leave the number of
    the unit, which the call takes away, so that a block may be called several
    times, be recomputed by gradient checkpointing, copied, pickled and
    compiled. ``torch.fx`` records layers without running them; the call then
    reads its number off the graph.

    Raises:
        RuntimeError: If no layer of the block has run before a call.
    """

    def listen(self, block: nn.Module, sites: CallSites) -> None:
        """Put hooks on the layers of the block that has these call sites."""
        self._next, self._chained = -1, sites.chained
        _Mark(self, 0, block.register_forward_pre_hook)
        for name, number in sites.marks.items():
            layer = block.get_submodule(name)
            _Mark(self, number, layer.register_forward_hook)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the unit of this call."""
        if isinstance(x, Proxy):
            self._read(x)
        number = self._next
        if number < 0:
            raise RuntimeError(
                f'cannot tell which of {len(self)} units is called, since no '
                'layer of the block has run before; run the block as a whole, '
                'or let its calls share one unit by shared=[...] of '
                'replace_activations')
        self._next = number + 1 if number + 1 in self._chained else -1
        return self[number](x)

    def _read(self, x: Proxy) -> None:
        """Run our hooks on what a graph recorded since the last reading."""
        graph, root = x.node.graph, x.tracer.root
        read = _READ.setdefault(graph, {})
        # A tracer runs the root's forward without its hooks.
        hooks = [] if self in read else [*root._forward_pre_hooks.values()]
        for node in list(graph.nodes)[read.get(self, 0):]:
            if node.op == 'call_module':
                layer = root.get_submodule(node.target)
                hooks.extend(layer._forward_hooks.values())
        for hook in hooks:
            if isinstance(hook, _Mark) and hook.units is self:
                self._next = hook.number
        read[self] = len(graph.nodes)


#: How many nodes of a graph in the making its units have read.
_READ: MutableMapping[Graph, Dict[SiteUnits, int]] = WeakKeyDictionary()


class _Mark:
    """A hook that leaves the number of the unit to use next."""

    def __init__(self, units: SiteUnits, number: int,
                 register: Callable) -> None:
        self.units, self.number = units, number
        # Kept, since it reserves its number when unpickled.
        self.handle = register(self, with_kwargs=True)

    def __call__(self, layer: nn.Module, args: tuple, kwargs: dict,
                 output: object = None) -> None:
        for x in (*args, *kwargs.values()):
            if isinstance(x, Proxy):
                self.units._read(x)
        self.units._next = self.number


class ModulePlace(NamedTuple):
    """A module in a block, and its dotted name in the model."""

    name: str
    block: nn.Module
    attribute: str
    module: nn.Module


def find_places(model: nn.Module) -> Iterator[ModulePlace]:
    """Yield every module below a model, as often as it is registered."""
    for prefix, block in model.named_modules():
        # named_children would leave out a module registered twice.
        for name, child in block._modules.items():
            if child is not None:
                full = f'{prefix}.{name}' if prefix else name
                yield ModulePlace(full, block, name, child)


def put_units(place: ModulePlace, units: List[nn.Module],
              sites: CallSites) -> None:
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

    A block that builds one activation from ``act_cfg`` and calls it several
    times has such a unit, as in MMPretrain's DenseNet. A unit whose calls
    cannot be counted, as in a loop, is left out.

    Example:
        >>> unit = AGLU()
        >>> shared, = find_shared_units(nn.Sequential(unit, unit))
        >>> shared.names, shared.sites
        (['0', '1'], 2)
    """
    return [shared for shared, _ in _shared_units(model)]


def split_shared_units(model: nn.Module) -> List[SharedUnit]:
    """Give each place that calls a shared unit its own; return what was split.

    Call it before weights are loaded and the optimizer is built.
    """
    found = [pair for pair in _shared_units(model) if pair[0].can_split]
    for shared, callers in found:
        unit = callers[0][0].module
        # The unit itself stays at the first place: a name that no place
        # calls would otherwise keep a unit without gradient.
        units = iter([unit] + [deepcopy(unit) for _ in range(1, shared.sites)])
        for place, sites in callers:
            put_units(place, [next(units) for _ in range(sites.count)], sites)
    return [shared for shared, _ in found]


_Callers = List[Tuple[ModulePlace, CallSites]]


def _shared_units(model: nn.Module) -> Iterator[Tuple[SharedUnit, _Callers]]:
    callers: Dict[nn.Module, _Callers] = {}
    for place in find_places(model):
        if type(place.module) is not AGLU:
            continue
        sites = find_call_sites(place.block, place.attribute)
        if sites.count:
            callers.setdefault(place.module, []).append((place, sites))
    for group in callers.values():
        total = sum(sites.count for _, sites in group)
        if total > 1:
            mixed = any(sites.count > 1 and sites.unmarked
                        for _, sites in group)
            names = [place.name for place, _ in group]
            yield SharedUnit(names, total, not mixed), group
