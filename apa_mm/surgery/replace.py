"""Swap the activations of a built model for AGLU units."""
import re
from typing import (Any, Dict, List, NamedTuple, Optional, Sequence, Tuple,
                    Union)

import torch
from mmengine.logging import print_log
from torch import nn

from apa_mm.layers.activation import AGLU
from apa_mm.registry import MODELS
from apa_mm.utils.checks import check_choice

from .call_sites import CallSites, find_call_sites
from .equivalents import RELU_KAPPA, equivalent_of, kind_of
from .site_units import ModulePlace, find_places, find_shared_units, put_units

#: What ``types`` names, beside class names -> kinds of ``kind_of``.
FAMILIES: Dict[str, Tuple[str, ...]] = {
    'ReLU': ('relu', ),
    'SiLU': ('silu', ),
    'GELU': ('gelu', 'gelu_tanh', 'quick_gelu'),
}
#: How libraries number their stages: layer3 (ResNet), stage3 (CSPNeXt),
#: stages.3 (ConvNeXt, Swin), layers.3 (ViT), blocks.3 (timm), h.3 (GPT-2).
STAGE_NAME = re.compile(
    r'(?:^|\.)(?:layers?|stages?|blocks|h)\.?(\d+)(?:\.|$)')


class Swap(NamedTuple):
    """One activation that was replaced by ``sites`` AGLU units.

    The rest is that of :class:`~apa_mm.surgery.equivalents.Equivalent`, None
    if drawn at random.
    """

    name: str
    old: str
    sites: int
    kappa: Optional[float] = None
    lambd: Optional[float] = None
    deviation: Optional[float] = None


class SwapReport(NamedTuple):
    """What was swapped, what stayed and why, and which units are shared."""

    swapped: List[Swap]
    kept: List[Tuple[str, str]]
    shared: List[str] = []

    @property
    def num_units(self) -> int:
        """int: Number of AGLU units made."""
        return sum(swap.sites for swap in self.swapped)

    def __str__(self) -> str:
        lines = [f'{self.num_units} AGLU units in place of '
                 f'{len(self.swapped)} activation modules']
        for old in sorted({swap.old for swap in self.swapped}):
            same = [swap for swap in self.swapped if swap.old == old]
            first = same[0]
            values = 'random kappa and lambda' if first.kappa is None else (
                f'kappa={first.kappa:g}, lambda={first.lambd:g}, at most '
                f'{first.deviation:.1e} off')
            units = sum(swap.sites for swap in same)
            lines.append(f'  {old}: {units} units, {values}')
        lines += [f'  kept {name}: {why}' for name, why in self.kept]
        lines += [f'  shared: {text}' for text in self.shared]
        return '\n'.join(lines)


def replace_activations(model: nn.Module, *,
                        types: Sequence[str] = tuple(FAMILIES),
                        pattern: Optional[str] = None,
                        stages: Optional[Sequence[int]] = None,
                        init: str = 'equivalent',
                        relu_kappa: float = RELU_KAPPA,
                        shared: Sequence[str] = (),
                        act_cfg: Optional[dict] = None) -> SwapReport:
    """Swap activation modules for AGLU units, in place; print the report.

    A block that calls one module several times gets one unit per call, see
    :class:`~apa_mm.surgery.site_units.SiteUnits`. Call it before the
    optimizer is built and the model is wrapped for distributed training, or
    use ``apa_mm.ReplacedActivations`` in the config. Activations called as
    functions (``F.relu``) stay.

    Args:
        model (nn.Module): Any model.
        types (Sequence[str]): Which activations: 'ReLU', 'SiLU' or 'GELU'
            with all its forms, or names of single classes.
        pattern (str, optional): Regular expression that the dotted name of
            the module must contain, such as ``'^backbone'``.
        stages (Sequence[int], optional): Only stages of these numbers, as
            :data:`STAGE_NAME` finds them in the name.
        init (str): 'equivalent' keeps the model's function, within the
            deviation of :func:`~apa_mm.surgery.equivalents.equivalent_of` per
            unit; 'random' takes AGLU's own ranges.
        relu_kappa (float): kappa that stands for ReLU; a smaller one lets
            kappa learn sooner and starts further from ReLU.
        shared (Sequence[str]): ``'BlockClass.attribute'`` of activations
            whose calls may all use one unit, such as calls in a loop.
        act_cfg (dict, optional): Further arguments of
            :class:`~apa_mm.layers.AGLU`: ``lambd_min``, ``lambda_grad``.

    Raises:
        ValueError: If nothing matches, an option is unknown, or the calls
            of a block cannot be told apart in its source. The model is
            unchanged then.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.SiLU())
        >>> report = replace_activations(model)
        >>> report.num_units, type(model[1]).__name__
        (1, 'AGLU')
    """
    check_choice('init', init, ('equivalent', 'random'))
    found = [place for place in find_places(model) if kind_of(place.module)]
    chosen = [place for place in found
              if _matches(place, types, pattern, stages)]
    if not chosen:
        raise ValueError(
            f'no activation matches types={tuple(types)}, pattern='
            f'{pattern!r}, stages={stages}; the model has {_describe(found)}')
    # All before the first change: an error must leave the model whole.
    sites = [_sites_of(place, shared) for place in chosen]
    report = SwapReport([], [])
    for place, found_sites in zip(chosen, sites, strict=True):
        if found_sites.count == 0:
            report.kept.append(
                (place.name, f'{type(place.block).__name__} never calls it'))
            continue
        values, options = (), dict(act_cfg or {})
        if init == 'equivalent':
            values = equivalent_of(kind_of(place.module), relu_kappa)
            options.update(kappa_init=values.kappa, lambd_init=values.lambd)
        report.swapped.append(Swap(place.name, type(place.module).__name__,
                                   found_sites.count, *values))
        # The block's own device: a model may lie on several.
        anchor = next(place.block.parameters(), next(model.parameters(), None))
        device = None if anchor is None else anchor.device
        put_units(place, [AGLU(**options).to(device)
                          for _ in range(found_sites.count)], found_sites)
    return report._replace(shared=list(map(str, find_shared_units(model))))


def _matches(place: ModulePlace, types: Sequence[str], pattern: Optional[str],
             stages: Optional[Sequence[int]]) -> bool:
    kind = kind_of(place.module)
    named = type(place.module).__name__ in types or any(
        kind in FAMILIES.get(name, ()) for name in types)
    if not named or not re.search(pattern or '', place.name):
        return False
    if stages is None:
        return True
    stage = STAGE_NAME.search(place.name)
    return stage is not None and int(stage[1]) in stages


def _describe(found: Sequence[ModulePlace]) -> str:
    if not found:
        return 'no ReLU, SiLU or GELU modules at all'
    names = sorted({type(place.module).__name__ for place in found})
    return (f'{len(found)} activation modules ({", ".join(names)}), such as '
            f'{found[0].name}')


def _sites_of(place: ModulePlace, shared: Sequence[str]) -> CallSites:
    block = type(place.block).__name__
    key = f'{block}.{place.attribute}'
    if key in shared:
        return CallSites(1)
    sites = find_call_sites(place.block, place.attribute)
    if sites.count is None or (sites.count > 1 and sites.unmarked):
        raise ValueError(
            f'the calls of {place.name} cannot be told apart in the source of '
            f'{block}, and they must not share kappa and lambda by accident; '
            f"name it in shared=['{key}'] to let all of them use one unit, or "
            'leave it out by pattern')
    return sites


@MODELS.register_module(name='ReplacedActivations')
def build_with_replaced_activations(model: Union[dict, str],
                                    data_preprocessor: Optional[dict] = None,
                                    replace: Optional[dict] = None,
                                    **others: Any) -> nn.Module:
    """Build a model and swap its activations in it: the switch for configs.

    ``model=dict(type='apa_mm.ReplacedActivations', model=dict(...),
    stages=[3, 4])``, or, in a child of a config, ``model=dict(
    type='apa_mm.ReplacedActivations', model='mmdet.RetinaNet',
    replace=dict(stages=[3, 4]))``, which leaves ``cfg.model.backbone`` and
    all else in place.

    Args:
        model (dict | str): Config of the model, or its type alone.
        data_preprocessor (dict, optional): Goes to the inner model.
        replace (dict, optional): Options of :func:`replace_activations`.
        **others: Such options too; with a type, arguments of the model.
    """
    replace = dict(replace or {})
    if isinstance(model, str):
        model = dict(others, type=model)
    else:
        model = dict(model)
        replace.update(others)
    if data_preprocessor is not None:
        model.setdefault('data_preprocessor', data_preprocessor)
    built = MODELS.build(model)
    with torch.no_grad():
        report = replace_activations(built, **replace)
    print_log(str(report), logger='current')
    return built
