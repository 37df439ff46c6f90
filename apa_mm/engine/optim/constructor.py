"""Optimizers that leave kappa and lambda without weight decay."""
from typing import Any, List, Optional

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from apa_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

UNDECAYED = ('kappa', 'lambd')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class APAOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with no weight decay for kappa and lambda.

    Every ``paramwise_cfg`` of mmengine works as before. A parameter whose
    name ends in ``kappa`` or ``lambd`` gets ``decay_mult=0`` whatever the
    other rules say; only a key of ``custom_keys`` that contains that word
    changes it: ``custom_keys=dict(kappa=dict(decay_mult=1.))``. A key such as
    ``backbone`` still sets their learning rate.

    Other rules are joined by inheritance, this class first, as in ``class
    Constructor(APAOptimWrapperConstructor,
    LearningRateDecayOptimWrapperConstructor): pass``.

    Example:
        >>> from apa_mm.layers import AGLU
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), AGLU())
        >>> constructor = APAOptimWrapperConstructor(dict(
        ...     optimizer=dict(type='SGD', lr=0.1, weight_decay=1e-4)))
        >>> groups = constructor(model).optimizer.param_groups
        >>> [group['weight_decay'] for group in groups]
        [0.0001, 0.0, 0.0]
    """

    def __init__(self, optim_wrapper_cfg: dict,
                 paramwise_cfg: Optional[dict] = None) -> None:
        # Without any rule mmengine makes a single group, in which a shared
        # parameter occurs once; this rule keeps that so for many groups.
        super().__init__(optim_wrapper_cfg, paramwise_cfg
                         or dict(bypass_duplicate=True))

    def add_params(self, params: List[dict], module: nn.Module,
                   *args: Any, **kwargs: Any) -> None:
        """Append groups of a module's parameters, as the parent does."""
        outermost = not params and not args and not kwargs
        super().add_params(params, module, *args, **kwargs)
        if not outermost:
            return
        names = {parameter: name for name, parameter
                 in module.named_parameters()
                 if name.rpartition('.')[2] in UNDECAYED}
        for group in params:
            name = names.get(group['params'][0])
            if name is not None and len(group['params']) == 1:
                group['weight_decay'] = (
                    (self.base_wd or 0.) * self._decay_mult(name))

    def _decay_mult(self, name: str) -> float:
        custom_keys = self.paramwise_cfg.get('custom_keys', {})
        speaking = [key for key in custom_keys if key in name
                    and any(word in key for word in UNDECAYED)]
        # The longest counts, as in mmengine, then the first by alphabet.
        best = min(speaking, key=lambda key: (-len(key), key), default=None)
        return 0. if best is None else custom_keys[best].get('decay_mult', 0.)
