"""A hook for jobs of several processes; configs import this module."""
import os

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module(force=True)
class RankRecorder(Hook):
    """Writes every rank's losses and parameters to ``folder``."""

    def __init__(self, folder):
        self.folder, self.losses = folder, []
        self.no_gradient = set()

    def before_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        self.begin = {n: p.detach().clone() for n, p in
                      model.named_parameters()}
        self.no_gradient = {
            n for n, p in model.named_parameters() if p.requires_grad
        }
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    lambda p, name=name: self.no_gradient.discard(name))

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        self.losses.append(outputs['loss'].item())

    def after_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        os.makedirs(self.folder, exist_ok=True)
        rank = os.environ.get('RANK', '0')
        torch.save(
            dict(
                losses=self.losses,
                no_gradient=sorted(self.no_gradient),
                begin=self.begin,
                end={n: p.detach().clone()
                     for n, p in model.named_parameters()}),
            os.path.join(self.folder, f'rank_{rank}.pt'))
