"""Tell a user whose optimizer decays kappa and lambda."""
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from apa_mm.engine.optim.constructor import (UNDECAYED,
                                             APAOptimWrapperConstructor)
from apa_mm.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS
from apa_mm.surgery import find_shared_units
from apa_mm.weights.load_check import unwrap


@HOOKS.register_module()
class WeightDecayCheckHook(Hook):
    """Warn once before training if kappa or lambda decay or are shared.

    What :class:`~apa_mm.engine.optim.APAOptimWrapperConstructor` built is as
    its config asked and is not looked at. Units that several places of the
    model call, as ``act_cfg`` makes them in some networks, are named.
    """

    def before_train(self, runner: Runner) -> None:
        """Look at the units and at the groups of the optimizer."""
        for shared in find_shared_units(unwrap(runner.model)):
            runner.logger.warning(str(shared))
        kind = (runner.cfg.get('optim_wrapper') or {}).get('constructor')
        if isinstance(kind, str):
            kind = OPTIM_WRAPPER_CONSTRUCTORS.get(kind)
        if isinstance(kind, type) and issubclass(kind,
                                                 APAOptimWrapperConstructor):
            return
        wrapper = runner.optim_wrapper
        several = isinstance(wrapper, OptimWrapperDict)
        decaying = {
            parameter
            for one in (wrapper.values() if several else [wrapper])
            for group in one.optimizer.param_groups
            if group.get('weight_decay') for parameter in group['params']}
        names = [name for name, parameter in runner.model.named_parameters()
                 if parameter.requires_grad and parameter in decaying
                 and name.rpartition('.')[2] in UNDECAYED]
        if names:
            runner.logger.warning(
                f'{len(names)} parameters kappa and lambda, such as '
                f'{names[0]}, get weight decay, which pulls kappa to 0 and '
                'lambda to its floor; set optim_wrapper=dict(constructor='
                "'apa_mm.APAOptimWrapperConstructor') in the config")
