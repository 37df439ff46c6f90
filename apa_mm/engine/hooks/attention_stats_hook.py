"""Entropy and variance of attention gates at every validation."""
from contextlib import ExitStack
from statistics import fmean
from typing import Any, Dict, List, Optional, Sequence, Tuple

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from apa_mm.layers.gates import GateSums, find_gates, record_gates
from apa_mm.registry import HOOKS
from apa_mm.weights.load_check import unwrap

MEASURES = ('entropy', 'variance', 'mean')


@HOOKS.register_module()
class AttentionStatsHook(Hook):
    """Measure every gate while the model is validated or tested.

    Forward hooks listen to the gates during every ``interval``-th batch (1 or
    more), from the first. After the loop ``attention/<gate>/entropy`` (Eq. 4,
    base 2), ``.../variance`` (over the channels of the signal averaged over
    images) and ``.../mean``, over all ranks, go to the visualizer's backends,
    and their means over gates to the log.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 10) -> None:
        if interval < 1:
            raise ValueError(
                f'interval must be 1 batch or more, but got {interval}')
        self.interval = interval
        self._gates: Dict[str, nn.Module] = {}
        self._sums = GateSums()
        self._caught: List[Tuple[str, Tensor]] = []
        self._stack = ExitStack()

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Look for gates before 'val' and 'test'."""
        if mode == 'train':
            return
        self._stop()
        self._gates = find_gates(unwrap(runner.model))
        self._sums = GateSums()
        if not self._gates:
            runner.logger.info('AttentionStatsHook: the model has no '
                               'attention gate to listen to')

    def _before_iter(self, runner: Runner, batch_idx: int,
                     data_batch: Optional[Any] = None,
                     mode: str = 'train') -> None:
        """Listen to a batch if it is its turn."""
        if mode == 'train' or not self._gates or batch_idx % self.interval:
            return
        model = unwrap(runner.model)
        self._stack.enter_context(record_gates(
            model, lambda name, out: self._caught.append((name, out)),
            self._gates))
        # Called even if the forward pass raises; then there is no output.
        handle = model.register_forward_hook(self._on_end, always_call=True)
        self._stack.callback(handle.remove)

    def _on_end(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        if output is None:
            self._stop()

    def _after_iter(self, runner: Runner, batch_idx: int,
                    data_batch: Optional[Any] = None,
                    outputs: Optional[Sequence] = None,
                    mode: str = 'train') -> None:
        """Add up what was heard in 'val' and 'test', and stop listening."""
        for name, values in self._caught:
            self._sums.update(name, values)
        self._stop()

    def _stop(self) -> None:
        self._stack.close()
        self._caught.clear()

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Log the statistics of all ranks after 'val' and 'test'."""
        self._stop()
        if mode == 'train' or not self._gates:
            return
        # Objects: a rank without images does not know the channels.
        total = GateSums()
        for sums in all_gather_object(self._sums.sums):
            total.merge(sums)
        self._sums = total
        found = {name: groups[0] for name, groups in total.result().items()
                 if groups[0].images}
        if not found:
            return
        scalars, means = {}, []
        for measure in MEASURES:
            values = {f'attention/{name}/{measure}': getattr(stats, measure)
                      for name, stats in found.items()}
            scalars.update(values)
            means.append(f'{measure} {fmean(values.values()):.4f}')
        runner.visualizer.add_scalars(scalars, step=runner.iter)
        images = next(iter(found.values())).images
        runner.logger.info(
            f'attention ({mode}): {len(found)} gates on {images} images, '
            f'mean over gates: {", ".join(means)}')
