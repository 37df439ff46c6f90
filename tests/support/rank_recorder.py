"""For jobs of several processes; configs import this module."""
import itertools
import os

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, HOOKS
from support.training_probe import TrainingProbe

from apa_mm.weights.load_check import unwrap


WORLD_SIZE = 2
BATCH = 2


@DATA_SAMPLERS.register_module(force=True)
class OneAfterAnother(InfiniteSampler):
    """One process's batches are those of rank 0, of rank 1, of rank 0..."""

    def __iter__(self):
        order = super().__iter__()
        while step := list(itertools.islice(order, WORLD_SIZE * BATCH)):
            for rank in range(WORLD_SIZE):
                yield from step[rank::WORLD_SIZE]


@HOOKS.register_module(force=True)
class RankRecorder(TrainingProbe):
    """Writes every rank's losses and parameters to ``folder``.

    A rank's iteration draws what one process draws for the same batch.
    """

    def __init__(self, folder):
        self.folder = folder

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        torch.manual_seed(runner.iter * runner.world_size + runner.rank)

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
