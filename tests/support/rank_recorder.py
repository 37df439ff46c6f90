"""A hook for jobs of several processes; configs import this module."""
import os

import torch
from mmengine.registry import HOOKS
from support.training_probe import TrainingProbe

from apa_mm.weights.load_check import unwrap


@HOOKS.register_module(force=True)
class RankRecorder(TrainingProbe):
    """Writes every rank's losses and parameters to ``folder``."""

    def __init__(self, folder):
        self.folder = folder

    def after_train(self, runner):
        end = dict(unwrap(runner.model).named_parameters())
        trainable = {n for n, p in end.items() if p.requires_grad}
        os.makedirs(self.folder, exist_ok=True)
        rank = os.environ.get('RANK', '0')
        torch.save(
            dict(
                losses=self.losses,
                no_gradient=sorted(trainable - self.seen),
                begin=self.before,
                end={n: p.detach().clone() for n, p in end.items()}),
            os.path.join(self.folder, f'rank_{rank}.pt'))
