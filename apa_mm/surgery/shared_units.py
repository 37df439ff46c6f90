"""Find units that several calls share, and give each call its own."""
from copy import deepcopy
from typing import Dict, List, NamedTuple, Tuple

from torch import nn

from apa_mm.layers.activation import AGLU

from .call_sites import CONTAINERS, CallSites, find_call_sites
from .site_units import SiteUnits

__all__ = ['SharedUnit', 'find_shared_units', 'split_shared_units']


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
    """List the AGLU units that more than one place calls.

    ``act_cfg`` makes such units where a block builds one activation and
    calls it several times, as the layers of MMPretrain's DenseNet do.

    Args:
        model (nn.Module): Any model.

    Returns:
        list[SharedUnit]: In module order; a unit whose calls cannot be
        counted, as in a loop, is left out.

    Example:
        >>> unit = AGLU()
        >>> shared, = find_shared_units(nn.Sequential(unit, unit))
        >>> shared.names, shared.sites
        (['0', '1'], 2)
    """
    return [_describe(places) for places in _shared_places(model)]


def split_shared_units(model: nn.Module) -> List[SharedUnit]:
    """Give each place that calls a shared unit a copy of it, in place.

    Call it before weights are loaded and the optimizer is built. Returns what
    was split.
    """
    done = []
    for places in _shared_places(model):
        shared = _describe(places)
        if not shared.can_split:
            continue
        unit = places[0][1]._modules[places[0][2]]
        # The unit itself stays at the first place: a name that no place
        # calls would otherwise keep a unit without gradient.
        units = iter([unit] + [deepcopy(unit) for _ in range(1, shared.sites)])
        for _, block, name, sites in places:
            mine = [next(units) for _ in range(sites.count)]
            new = mine[0] if len(mine) == 1 else SiteUnits(mine)
            setattr(block, name, new)
            if len(mine) > 1:
                new.listen(block, sites)
        done.append(shared)
    return done


#: Full name, block, attribute and call sites of a unit.
_Place = Tuple[str, nn.Module, str, CallSites]


def _shared_places(model: nn.Module) -> List[List[_Place]]:
    by_unit: Dict[nn.Module, List[_Place]] = {}
    for prefix, block in model.named_modules():
        # named_children would leave out a module registered twice.
        for name, child in block._modules.items():
            if type(child) is not AGLU:
                continue
            sites = CallSites(1) if isinstance(block, CONTAINERS) else (
                find_call_sites(block, name))
            if sites.count:
                by_unit.setdefault(child, []).append(
                    (f'{prefix}.{name}' if prefix else name, block, name,
                     sites))
    return [places for places in by_unit.values()
            if sum(sites.count for *_, sites in places) > 1]


def _describe(places: List[_Place]) -> SharedUnit:
    return SharedUnit([name for name, *_ in places],
                      sum(sites.count for *_, sites in places),
                      not any(sites.count > 1 and sites.unmarked
                              for *_, sites in places))
