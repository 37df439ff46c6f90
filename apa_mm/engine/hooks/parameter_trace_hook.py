"""Watch kappa and lambda while a network trains."""
from typing import Any, Dict, Optional

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from apa_mm.layers.pairs import mean_values, units_and_gates
from apa_mm.registry import HOOKS
from apa_mm.weights.load_check import unwrap

TRACE_PREFIX = 'apa/'


@HOOKS.register_module()
class ParameterTraceHook(Hook):
    """Give kappa and lambda of every unit and gate to the visualizer.

    Every ``interval`` iterations (1 or more), before the first and after the
    last one, each site's ``apa/<site>/kappa`` and ``apa/<site>/lambd`` go to
    the visualizer's backends. Of values per channel that is the mean; lambda
    is shown as used, not below its floor. ``tools/analyze.py parameters
    --traces WORK_DIR`` draws the history.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 500) -> None:
        if interval < 1:
            raise ValueError(
                f'interval must be 1 iteration or more, but got {interval}')
        self.interval = interval
        self._sites: Dict[str, nn.Module] = {}
        self._last = 0

    def before_train(self, runner: Runner) -> None:
        """Look for units and gates, and note where they start."""
        self._sites = units_and_gates(unwrap(runner.model))
        if not self._sites:
            runner.logger.info('ParameterTraceHook: the model has no APA and '
                               'no AGLU, so there is nothing to trace')
            return
        self._enter(runner, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int,
                         data_batch: Optional[Any] = None,
                         outputs: Optional[dict] = None) -> None:
        """Make an entry if it is time to; iterations count over epochs."""
        if self._sites and self.every_n_train_iters(runner, self.interval):
            self._enter(runner, runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        """Make the last entry."""
        if self._sites and runner.iter != self._last:
            self._enter(runner, runner.iter)

    @master_only
    def _enter(self, runner: Runner, step: int) -> None:
        scalars = {
            f'{TRACE_PREFIX}{site}/{name}': value
            for site, pair in mean_values(self._sites).items()
            for name, value in zip(('kappa', 'lambd'), pair, strict=True)}
        runner.visualizer.add_scalars(scalars, step=step)
        self._last = step
