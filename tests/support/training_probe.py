"""A hook that notes what a training does, for several tests."""
import torch
from mmengine.hooks import Hook

from apa_mm.weights.load_check import unwrap


class TrainingProbe(Hook):
    """Notes losses, the state at the start, and who gets a finite gradient.

    The notes are of the class, since the tests do not see the instance.
    """

    seen: set = set()
    before: dict = {}
    losses: list = []

    def before_train(self, runner):
        notes, model = type(self), unwrap(runner.model)
        notes.seen, notes.losses = set(), []
        notes.before = {
            n: value.detach().clone()
            for n, value in model.state_dict().items()
        }
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    lambda p, name=name: self._note(name, p))

    def _note(self, name, parameter):
        if torch.isfinite(parameter.grad).all():
            self.seen.add(name)

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        self.losses.append(outputs['loss'].item())
