"""kappa and lambda of all units and gates of a model or a state dict."""
import re
from typing import Dict, List, Mapping, NamedTuple, Set, Tuple

import torch
from torch import Tensor, nn

from .activation import AGLU, APA, LAMBDA_FLOOR

#: Our names and the authors'.
_LEAVES = {'kappa': 'kappa', 'kappa_param': 'kappa', 'lambd': 'lambd',
           'lambda_param': 'lambd'}
_GATES = ('gate', 'uniact', 'unact')
_SITE = re.compile(
    r'(?:backbone\.)?(?:layer(?P<stage>\d+)\.(?P<block>\d+)\.'
    r'(?P<site>act\d|attention\..*gate|attention\.gate)'
    r'|conv1\.(?P<stem>\d)|act1)')


class Pair(NamedTuple):
    """kappa and lambda, (1,) or (C,), of a 'unit' (AGLU) or 'gate' (APA).

    Lambda is as stored: it may lie below the floor.
    """

    name: str
    kind: str
    kappa: Tensor
    lambd: Tensor

    def dead(self, clamp: str) -> bool:
        """Return whether the source's clamp gives some lambda no gradient."""
        return bool((self.lambd <= 0 if clamp == 'shifted' else
                     self.lambd < LAMBDA_FLOOR).any())


def units_and_gates(model: nn.Module) -> Dict[str, nn.Module]:
    """Return every AGLU and APA of a model by name, in module order."""
    return {name: module for name, module in model.named_modules()
            if isinstance(module, (APA, AGLU))}


def model_pairs(model: nn.Module) -> List[Pair]:
    """Return kappa and lambda of a model, on the CPU, in module order.

    Lambda is as used, not below its floor.

    Example:
        >>> pair, = model_pairs(AGLU(kappa_init=2.0))
        >>> pair.kind, pair.kappa
        ('unit', tensor([2.]))
    """
    return [
        Pair(name, 'gate' if isinstance(module, APA) else 'unit',
             module.kappa.detach().cpu(),
             module.lambd.detach().clamp(min=module.lambd_min).cpu())
        for name, module in units_and_gates(model).items()
    ]


@torch.no_grad()
def mean_values(modules: Mapping[str, nn.Module]
                ) -> Dict[str, Tuple[float, float]]:
    """Return mean kappa and lambda by site, copied from the device at once."""
    table = torch.stack([
        value.float().mean() for m in modules.values()
        for value in (m.kappa, m.lambd.float().clamp(min=m.lambd_min))
    ]).view(-1, 2).tolist()
    return {name: tuple(row)
            for name, row in zip(modules, table, strict=True)}


def parameter_pairs(tensors: Mapping[str, Tensor]) -> List[Pair]:
    """Find kappa and lambda in a state dict, under our or the authors' names.

    They come in the order of a ResNet: the stem, then by stage, block and
    site; those of other networks in the order of the file.

    Example:
        >>> one = torch.ones(1)
        >>> [(p.name, p.kind) for p in parameter_pairs({
        ...     'layer1.0.attention.gate.kappa': one,
        ...     'layer1.0.attention.gate.lambd': one,
        ...     'act1.kappa': one, 'act1.lambd': one})]
        [('act1', 'unit'), ('layer1.0.attention.gate', 'gate')]
    """
    found: Dict[str, Dict[str, Tensor]] = {}
    for name, value in tensors.items():
        owner, _, leaf = name.rpartition('.')
        if leaf in _LEAVES:
            found.setdefault(owner, {})[_LEAVES[leaf]] = (
                # torch does not compare float8.
                value.float() if value.itemsize == 1 else value).flatten()
    pairs = [
        Pair(owner, 'gate' if set(owner.split('.')) & set(_GATES) else 'unit',
             **values) for owner, values in found.items() if len(values) == 2
    ]
    owners = {pair.name for pair in pairs}
    return sorted(pairs, key=lambda pair: _place_of(pair.name, owners))


def _place_of(name: str, owners: Set[str]) -> Tuple[int, ...]:
    """Return stage, block and site in a ResNet; other names come last."""
    found = _SITE.fullmatch(name)
    if found is None:
        return (1, )
    if found['stage'] is None:  # in the stem; a ResNet-D has three units
        return 0, 0, int(found['stem'] or 99)
    site = found['site']
    if site.startswith('attention'):
        rank = 51 if 'spatial' in site else 50
    else:
        # The last unit of a block comes after the attention.
        index = int(site[3:])
        after = name[:-len(site)] + f'act{index + 1}'
        rank = index if after in owners else 60
    return 0, int(found['stage']), int(found['block']), rank
