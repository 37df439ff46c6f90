"""Watch kappa and lambda while a network trains."""
from typing import Any, Dict, List, Optional, Tuple

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from apa_mm.analysis.parameters import TRACE_PREFIX
from apa_mm.layers import AGLU, APA
from apa_mm.registry import HOOKS
from apa_mm.weights.load_check import unwrap

__all__ = ['ParameterTraceHook']

PICTURE = 'apa_parameters'


@HOOKS.register_module()
class ParameterTraceHook(Hook):
    """Give kappa and lambda of every unit and gate to the visualizer.

    Every ``interval`` iterations, and after the first and the last one, each
    site's ``apa/<site>/kappa`` and ``apa/<site>/lambd`` go to the backends
    of mmengine's visualizer: ``vis_data/scalars.json``, TensorBoard or wandb,
    whichever the config names. Of values per channel that is the mean.
    Lambda is shown as used, that is not below its floor. A picture of the
    history follows as ``apa_parameters``, if matplotlib is there.
    ``tools/analyze.py parameters --traces WORK_DIR`` draws it from the file.

    All values come from the device in one copy. At the default interval the
    cost was measured below 1 % of an iteration.

    Args:
        interval (int): Iterations between two entries.
        picture_interval (int): Entries between two pictures; 0 draws none.
            The last entry gets one in any case.

    Raises:
        ValueError: If ``interval`` is below 1 or ``picture_interval``
            negative.

    Example:
        >>> ParameterTraceHook(interval=100).interval
        100
    """

    priority = 'LOW'

    def __init__(self, interval: int = 500,
                 picture_interval: int = 10) -> None:
        if interval < 1:
            raise ValueError(f'interval must be 1 iteration or more, but got '
                             f'{interval}')
        if picture_interval < 0:
            raise ValueError('picture_interval must be 0 (no pictures) or '
                             f'more entries, but got {picture_interval}')
        self.interval = interval
        self.picture_interval = picture_interval
        self.trace: Dict[str, Dict[str, list]] = {}
        self._sites: List[Tuple[str, nn.Module]] = []
        self._entries = 0

    def before_train(self, runner: Runner) -> None:
        """Look for units and gates.

        Args:
            runner (Runner): The runner.
        """
        self._sites = [(name, module) for name, module in
                       unwrap(runner.model).named_modules()
                       if isinstance(module, (APA, AGLU))]
        self.trace = {}
        self._entries = 0
        if not self._sites:
            runner.logger.info('ParameterTraceHook: the model has no APA and '
                               'no AGLU, so there is nothing to trace')

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Optional[Any] = None,
                         outputs: Optional[dict] = None) -> None:
        """Make an entry if it is time to.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not used; iterations count over epochs.
            data_batch (Any, optional): Not used.
            outputs (dict, optional): Not used.
        """
        step = runner.iter + 1
        if self._sites and (step % self.interval == 0 or not self.trace):
            self._enter(runner, step)

    def after_train(self, runner: Runner) -> None:
        """Make the last entry, with a picture.

        Args:
            runner (Runner): The runner.
        """
        if self._sites:
            self._enter(runner, runner.iter, last=True)

    @master_only
    def _enter(self, runner: Runner, step: int, last: bool = False) -> None:
        first = next(iter(self.trace.values()), None)
        if first is None or first['step'][-1] != step:
            scalars: Dict[str, float] = {}
            for name, (kappa, lambd) in self._values().items():
                scalars[f'{TRACE_PREFIX}{name}/kappa'] = kappa
                scalars[f'{TRACE_PREFIX}{name}/lambd'] = lambd
                history = self.trace.setdefault(
                    name, dict(step=[], kappa=[], lambd=[]))
                for key, value in zip(history, (step, kappa, lambd),
                                      strict=True):
                    history[key].append(value)
            runner.visualizer.add_scalars(scalars, step=step)
            self._entries += 1
        due = self.picture_interval and (
            self._entries % self.picture_interval == 0)
        if self.picture_interval and (due or last):
            self._draw(runner, step)

    def _values(self) -> Dict[str, Tuple[float, float]]:
        """Return kappa and lambda by site, copied from the device at once."""
        with torch.no_grad():
            table = torch.stack([
                torch.stack([
                    module.kappa.float().mean(),
                    module.lambd.float().clamp(min=module.lambd_min).mean()
                ]) for _, module in self._sites
            ]).tolist()
        return {name: tuple(row) for (name, _), row in
                zip(self._sites, table, strict=True)}

    def _draw(self, runner: Runner, step: int) -> None:
        try:
            from apa_mm.analysis.views.parameters import picture_of_trace
            picture = picture_of_trace(self.trace)
        except ImportError as error:
            runner.logger.warning(f'ParameterTraceHook draws no picture: '
                                  f'{error}; install matplotlib, or set '
                                  'picture_interval=0')
            self.picture_interval = 0
            return
        runner.visualizer.add_image(PICTURE, picture, step=step)
