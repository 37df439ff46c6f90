"""Units that several calls share are found, named and split."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from apa_mm.layers import AGLU
from apa_mm.registry import HOOKS
from apa_mm.surgery import (find_shared_units, replace_activations,
                            split_shared_units)
from apa_mm.utils.imports import HAS_MMPRETRAIN

from test_surgery.test_replace import SharedBlock, units


class Either(nn.Module):

    def __init__(self):
        super().__init__()
        self.act = AGLU()

    def forward(self, x):
        if x.sum() > 0:
            x = self.act(x)
        return self.act(x)


def shared_block():
    block = SharedBlock()
    block.relu = AGLU(kappa_init=1.0, lambd_init=0.5)
    return block


def test_a_unit_at_two_places_of_a_model():
    unit = AGLU(kappa_init=2.0)
    model = nn.Sequential(unit, nn.Linear(2, 2), unit)
    shared, = find_shared_units(model)
    assert (shared.names, shared.sites) == (['0', '2'], 2)
    assert str(shared).startswith('0 is one AGLU that 2 places call, which '
                                  'share kappa and lambda; apa_mm.surgery.')
    assert split_shared_units(model) == [shared]
    assert model[0] is not model[2] and len(units(model)) == 2
    assert model[2].kappa.item() == 2.0
    assert not find_shared_units(model)


def test_a_unit_that_a_block_calls_several_times():
    block = shared_block()
    x = torch.randn(5, 4)
    expected = block(x)
    shared, = find_shared_units(nn.ModuleDict(dict(a=block)))
    assert (shared.names, shared.sites) == (['a.relu'], 3)
    split_shared_units(block)
    torch.testing.assert_close(block(x), expected)
    assert len(units(block)) == 3 and not find_shared_units(block)
    block(x).square().sum().backward()
    grads = {unit.kappa.grad.item() for unit in units(block)}
    assert len(grads) == 3


def test_a_unit_that_cannot_be_split_stays():
    model = Either()
    shared, = find_shared_units(model)
    assert 'does not tell them apart' in str(shared)
    assert split_shared_units(model) == [] and type(model.act) is AGLU


class Again(nn.Sequential):
    """A container that calls its members itself."""

    def forward(self, x):
        return self.act(self.fc(self.act(x)))


def test_a_container_with_a_forward_of_its_own():
    model = Again()
    model.act, model.fc = AGLU(), nn.Linear(2, 2)
    shared, = find_shared_units(model)
    assert (shared.names, shared.sites) == (['act'], 2)
    assert split_shared_units(model) == [shared]
    assert len(units(model)) == 2 and model(torch.ones(1, 2)).shape == (1, 2)


def test_the_report_of_a_swap_names_them():
    block = SharedBlock()
    report = replace_activations(block, shared=['SharedBlock.relu'])
    assert report.num_units == 1
    assert 'shared: relu is one AGLU that 3 places call' in str(report)
    assert not replace_activations(SharedBlock()).shared


def test_training_begins_with_a_line_about_them():
    hook = HOOKS.build(dict(type='apa_mm.WeightDecayCheckHook'))
    model, said = shared_block(), []
    runner = SimpleNamespace(
        model=model, cfg={}, logger=SimpleNamespace(warning=said.append),
        optim_wrapper=OptimWrapper(torch.optim.SGD(model.parameters(), lr=1)))
    hook.before_train(runner)
    assert [line.split(' is one')[0] for line in said] == ['relu']
    split_shared_units(model)
    said.clear()
    hook.before_train(runner)
    assert said == []


@pytest.mark.skipif(not HAS_MMPRETRAIN, reason='needs mmpretrain')
@pytest.mark.parametrize('memory_efficient', [False, True])
def test_densenet(memory_efficient):
    from mmpretrain.models import DenseNet
    arch = dict(growth_rate=4, depths=[1, 2], init_channels=8)

    def build(**cfg):
        torch.manual_seed(0)
        return DenseNet(arch, memory_efficient=memory_efficient, **cfg)

    x = torch.randn(2, 3, 32, 32).requires_grad_()
    model = build(act_cfg=dict(
        type='apa_mm.AGLU', kappa_init=1., lambd_init=1.))
    names = [shared.names for shared in find_shared_units(model)]
    # The network builds one unit of its own for all transitions.
    assert names == [['stem.2', 'transitions.1.1']] + [
        [f'stages.{s}.block.{b}.act'] for s, b in ((0, 0), (1, 0), (1, 1))]
    before = model(x)[-1]
    split_shared_units(model)
    torch.testing.assert_close(model(x)[-1], before)
    swapped = build()
    report = replace_activations(swapped)
    assert len(units(model)) == len(units(swapped)) == report.num_units
    assert not report.shared
    swapped(x)[-1].square().sum().backward()
    assert all(u.kappa.grad is not None for u in units(swapped))
