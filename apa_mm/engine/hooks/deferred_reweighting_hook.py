"""Switch class weights on at an epoch."""
from typing import List, Optional

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from apa_mm.registry import HOOKS


@HOOKS.register_module()
class DeferredReweightingHook(Hook):
    """Throw the switch of deferred re-weighting (DRW).

    Calls ``set_reweighting(active)`` of every module of the model that has
    it, such as :class:`apa_mm.losses.DeferredReweightedLoss`, at the start of
    every epoch, also of a resumed run. The log gets a line at the switch and
    the scalar ``train/reweighting`` (0 or 1).

    Args:
        start_epoch (int): Epochs to train without weights, 0 or more.
            LDAM-DRW uses 160 of 200, the AGLU authors' code 0.
    """

    def __init__(self, start_epoch: int) -> None:
        if not isinstance(start_epoch, int) or start_epoch < 0:
            raise ValueError('start_epoch must be an integer of at least 0, '
                             f'but got {start_epoch!r}')
        self.start_epoch = start_epoch
        self._active: Optional[bool] = None

    def before_train(self, runner: Runner) -> None:
        """Check that there is something to switch and an epoch to do it at.

        Raises:
            ValueError: If not, or the loop ends before.
        """
        self._active = None
        if not _switches(runner.model):
            raise ValueError(
                'DeferredReweightingHook found no loss to switch; set '
                "loss=dict(type='apa_mm.DeferredReweightedLoss', ...) in the "
                'head or remove the hook')
        loop = runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop):
            raise ValueError(
                'DeferredReweightingHook needs a training loop that counts '
                f'epochs, but got {type(loop).__name__}; set '
                'train_cfg=dict(by_epoch=True, max_epochs=...)')
        if self.start_epoch >= loop.max_epochs:
            raise ValueError(
                f'start_epoch={self.start_epoch} is never reached in '
                f'max_epochs={loop.max_epochs}; lower it or remove the hook')

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the switch for the epoch that begins."""
        active = runner.epoch >= self.start_epoch
        for module in _switches(runner.model):
            module.set_reweighting(active)
        if active != self._active:
            state = 'on' if active else 'off'
            runner.logger.info(f'class weights are {state} from epoch '
                               f'{runner.epoch + 1}')
        self._active = active
        runner.message_hub.update_scalar('train/reweighting', int(active))


def _switches(model: nn.Module) -> List[nn.Module]:
    return [m for m in model.modules() if hasattr(m, 'set_reweighting')]
