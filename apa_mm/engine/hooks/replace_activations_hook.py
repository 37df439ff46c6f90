"""Swap the activations of the runner's model before it trains."""
import copy
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

from apa_mm.surgery.replace import replace_activations
from apa_mm.registry import HOOKS

__all__ = ['ReplaceActivationsHook']


@HOOKS.register_module()
class ReplaceActivationsHook(Hook):
    """Put AGLU units into an existing project's model by one config line.

    Runs before weights are initialised, loaded or resumed, in training and in
    testing. The optimizer and its schedules are built anew from the config,
    so that its rules for kappa and lambda apply; a distributed model is
    unwrapped and wrapped again. For a model that other code builds too, such
    as an inferencer, use ``type='apa_mm.ReplacedActivations'`` in the model's
    config instead.

    Args:
        **options: Of :func:`apa_mm.surgery.replace.replace_activations`, such
            as ``types``, ``pattern``, ``stages`` and ``init``.

    Raises:
        RuntimeError: In ``before_run``, if the optimizer was given to the
            runner as an object and cannot be built again.

    Example:
        >>> hook = ReplaceActivationsHook(stages=[3, 4])
        >>> hook.options
        {'stages': [3, 4]}
    """

    # Before the EMA hook copies the model.
    priority = 'VERY_HIGH'

    def __init__(self, **options: Any) -> None:
        self.options = options
        self._done = False

    def before_run(self, runner: Runner) -> None:
        """Swap the activations, once per runner.

        Args:
            runner (Runner): The runner, its model built and wrapped.
        """
        if self._done:
            return
        training = isinstance(runner.optim_wrapper,
                              (OptimWrapper, OptimWrapperDict))
        if training and not runner.cfg.get('optim_wrapper'):
            raise RuntimeError(
                'ReplaceActivationsHook must build the optimizer anew, but '
                "the runner got it as an object; use type='apa_mm."
                "ReplacedActivations' in the model's config")
        wrapped = is_model_wrapper(runner.model)
        model = runner.model.module if wrapped else runner.model
        report = replace_activations(model, **self.options)
        runner.logger.info(str(report))
        if wrapped:
            runner.model = runner.wrap_model(
                runner.cfg.get('model_wrapper_cfg'), model)
        if training:
            _rebuild_optimizer(runner)
        self._done = True


def _rebuild_optimizer(runner: Runner) -> None:
    """Repeat what ``Runner.train`` did just before ``before_run``."""
    runner.optim_wrapper = runner.build_optim_wrapper(
        copy.deepcopy(runner.cfg.optim_wrapper))
    # scale_lr refuses to run after the schedules are built.
    runner.param_schedulers = copy.deepcopy(runner.cfg.get('param_scheduler'))
    runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
    if runner.param_schedulers is not None:
        runner.param_schedulers = runner.build_param_scheduler(
            runner.param_schedulers)
