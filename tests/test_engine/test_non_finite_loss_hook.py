"""When a training with a lost loss stops."""
from types import SimpleNamespace

import pytest
import torch

from apa_mm.engine.hooks import NonFiniteLossHook
from apa_mm.preflight.job import InputError
from apa_mm.registry import HOOKS

NAN, INF = torch.tensor(float('nan')), torch.tensor(float('inf'))
FINE = dict(loss=torch.tensor(1.), loss_cls=torch.tensor(1.), acc=NAN)
LOST = dict(loss=NAN, loss_cls=torch.tensor(1.), loss_mask=INF)


def run(hook, *outputs):
    for number, output in enumerate(outputs):
        hook.after_train_iter(SimpleNamespace(iter=number), number, {}, output)


def test_three_in_a_row_stop_with_iteration_and_name():
    hook = HOOKS.build(dict(type='apa_mm.NonFiniteLossHook'))
    with pytest.raises(
            InputError,
            match=r'^loss_mask not finite in iteration 6, for the 3. time in '
            r'a row; lower the learning rate'):
        run(hook, LOST, LOST, FINE, LOST, LOST, LOST)


def test_single_ones_and_other_outputs_do_not_stop():
    run(NonFiniteLossHook(), *([LOST, LOST, FINE] * 4), None)
    with pytest.raises(InputError, match='^loss not finite in iteration 1,'):
        run(NonFiniteLossHook(patience=1), dict(loss=INF))


def test_patience_of_nothing():
    with pytest.raises(ValueError, match='1 or more, but got 0'):
        NonFiniteLossHook(patience=0)
