"""Stop a training whose loss is lost."""
from typing import Any, Optional

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from apa_mm.preflight.job import InputError
from apa_mm.registry import HOOKS


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop after ``patience`` (1 or more) losses of NaN or infinity in a row.

    A single one happens, in mixed precision by design.
    """

    # Before a checkpoint is written.
    priority = 'VERY_HIGH'

    def __init__(self, patience: int = 3) -> None:
        if patience < 1:
            raise ValueError(f'patience must be 1 or more, but got {patience}')
        self.patience = patience
        self._in_a_row = 0

    def after_train_iter(self, runner: Runner, batch_idx: int,
                         data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Look at the losses, by name in ``outputs``, of an iteration.

        Raises:
            InputError: If there were enough; it names the losses.
        """
        names = [name for name, value in (outputs or {}).items()
                 if 'loss' in name
                 and not torch.as_tensor(value).isfinite().all()]
        self._in_a_row = self._in_a_row + 1 if names else 0
        if self._in_a_row >= self.patience:
            # The sum says nothing that its parts do not.
            parts = [name for name in names if name != 'loss'] or names
            raise InputError(
                f'{", ".join(parts)} not finite in iteration '
                f'{runner.iter + 1}, for the {self._in_a_row}. time in a row; '
                'lower the learning rate, clip gradients '
                '(optim_wrapper.clip_grad) or warm up longer, and go on with '
                '--resume from the last checkpoint')
