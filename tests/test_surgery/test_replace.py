"""Swapping activations of small blocks, one unit per call."""
import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from support import forked

from apa_mm.layers import AGLU
from apa_mm.surgery import replace_activations
from apa_mm.registry import MODELS


class SharedBlock(nn.Module):
    """Calls one ReLU at three sites, as mmdet's and torchvision's blocks."""

    def __init__(self, checkpointed=False):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 4), nn.Linear(4, 4)
        self.relu = nn.ReLU()
        self.checkpointed = checkpointed

    def forward(self, x):

        def inner(x):
            return self.relu(self.fc2(self.relu(self.fc1(x))))

        if self.checkpointed and x.requires_grad:
            from torch.utils.checkpoint import checkpoint
            out = checkpoint(inner, x, use_reentrant=False)
        else:
            out = inner(x)
        return self.relu(out + x - 0.5)


def units(model):
    return [m for m in model.modules() if isinstance(m, AGLU)]


def set_units(model, values):
    for unit, (kappa, lambd) in zip(units(model), values, strict=True):
        nn.init.constant_(unit.kappa, kappa)
        nn.init.constant_(unit.lambd, lambd)


def aglu64(x, kappa, lambd):
    return x * (1 + lambd * torch.exp(-kappa * x))**(-1 / lambd)


# --- one unit per call site ---
VALUES = [(1.0, 0.5), (0.75, 2.0), (1.25, 0.125)]


def test_every_call_of_a_shared_module_gets_its_own_unit():
    block = SharedBlock().double()
    report = replace_activations(block)
    set_units(block, VALUES)
    assert report.num_units == 3 and len(block.relu) == 3
    x = torch.randn(5, 4, dtype=torch.float64)
    out = aglu64(block.fc1(x), *VALUES[0])
    out = aglu64(block.fc2(out), *VALUES[1])
    out = aglu64(out + x - 0.5, *VALUES[2])
    for _ in range(2):
        torch.testing.assert_close(block(x), out, rtol=1e-10, atol=0)
    assert type(block) is SharedBlock
    assert [n for n in block.state_dict() if 'kappa' in n] == [
        f'relu.{i}.kappa' for i in range(3)]


def test_gradient_checkpointing_recomputes_with_the_same_units():
    plain, recomputed = SharedBlock(), SharedBlock(checkpointed=True)
    recomputed.load_state_dict(plain.state_dict())
    xs = torch.randn(2, 6, 4).requires_grad_()
    for block in (plain, recomputed):
        replace_activations(block)
        set_units(block, VALUES)
        # Two passes before one backward: two recomputations in a row.
        sum(block(x).square().sum() for x in xs).backward()
    for one, two in zip(plain.parameters(), recomputed.parameters(),
                        strict=True):
        torch.testing.assert_close(one.grad, two.grad)
    assert units(plain)[1].kappa.grad.abs() > 0


def test_a_copy_and_a_compiled_block_are_like_the_block():
    block = SharedBlock()
    replace_activations(block)
    set_units(block, VALUES)
    x = torch.randn(3, 4)
    expected = block(x)
    clone = copy.deepcopy(block)
    set_units(block, [(1.0, 1.0)] * 3)
    torch.testing.assert_close(clone(x), expected)
    compiled = torch.compile(clone, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)


class Child(SharedBlock):
    """Uses a property, another method, super and keyword defaults."""

    def __init__(self):
        super().__init__()
        self.act = nn.SiLU()

    @property
    def last(self):
        return self.act

    def _middle(self, x, factor: float = 1.5, *, shift: float = 0.25):
        return apply_module(self.act, factor * self.fc1(x) + shift)

    def forward(self, x, scale: float = 2.0):
        x = self._middle(super().forward(x))
        if self.act is not None and x.sum() > 0:
            x = scale * x
        return self.last(x)


def apply_module(module, x):
    return module(x)


def test_properties_methods_and_defaults_are_followed():
    block = Child().double()
    assert replace_activations(block, types=['SiLU']).num_units == 2
    set_units(block, [(0.5, 0.25), (1.5, 0.75)])
    x = torch.randn(5, 4, dtype=torch.float64)
    out = SharedBlock.forward(block, x)
    out = aglu64(1.5 * block.fc1(out) + 0.25, 0.5, 0.25)
    out = aglu64(out * (2 if out.sum() > 0 else 1), 1.5, 0.75)
    torch.testing.assert_close(block(x), out, rtol=1e-10, atol=0)
    # The parent's own calls are reached by super().
    assert replace_activations(block).num_units == 3
    torch.testing.assert_close(block(x), out, rtol=1e-3, atol=1e-3)


class Two(SharedBlock):
    """Two modules with two calls each, in one method."""

    def __init__(self):
        super().__init__()
        self.act = nn.SiLU()

    def forward(self, x):
        x = self.act(self.relu(self.fc1(x)))
        return self.act(self.relu(self.fc2(x)))


@pytest.mark.parametrize('calls', [[['ReLU', 'SiLU']], [['ReLU'], ['SiLU']]])
def test_a_second_swap_keeps_what_the_first_one_did(calls):
    block = Two().double()
    for types in calls:
        assert replace_activations(
            block, types=types).num_units == 2 * len(types)
    assert len(block.relu) == len(block.act) == 2
    kappas = {'relu.0': 0.5, 'act.0': 0.75, 'relu.1': 1.25, 'act.1': 1.5}
    for name, kappa in kappas.items():
        nn.init.constant_(block.get_submodule(name).kappa, kappa)
    x = torch.randn(5, 4, dtype=torch.float64)
    out = aglu64(aglu64(block.fc1(x), 0.5, 1), 0.75, 1)
    out = aglu64(aglu64(block.fc2(out), 1.25, 1), 1.5, 1)
    torch.testing.assert_close(block(x), out, rtol=1e-10, atol=0)


def test_exclusive_branches_share_their_number():

    class Branches(nn.Module):

        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x):
            if x.sum() > 0:
                x = self.relu(x)
            else:
                x = self.relu(-x) if len(x) > 1 else self.relu(x)
            return self.relu(x - 1)

    block = Branches()
    assert replace_activations(block).num_units == 2
    set_units(block, [(1.0, 0.5), (0.75, 2.0)])
    x = torch.tensor([-1.0, 0.5])
    for sign in (1, -1):
        wanted = aglu64((sign * x).abs() * (sign * x).sign() * (
            1 if sign * x.sum() > 0 else -1), 1.0, 0.5)
        torch.testing.assert_close(
            block(sign * x), aglu64(wanted - 1, 0.75, 2.0))


def looping(self, x):
    for _ in range(3):
        x = self.relu(x)
    return x


def renaming(self, x):
    act = self.relu
    return act(act(x))


def fetching(self, x):
    return getattr(self, 're' + 'lu')(x)


def again(self, x):
    for _ in range(2):
        x = self.relu(self.fc(x))
    return x


def either(self, x):
    if x.sum() > 0:
        x = self.relu(self.fc(x))
    return self.relu(x)


@pytest.mark.parametrize('forward', [looping, renaming, fetching, again,
                                     either])
def test_calls_that_cannot_be_told_apart_change_nothing(forward):

    class Odd(nn.Module):

        def __init__(self):
            super().__init__()
            self.relu, self.fc = nn.ReLU(), nn.Linear(4, 4)

    Odd.forward = forward
    model = nn.Sequential(SharedBlock(), nn.ReLU(), Odd())
    with pytest.raises(ValueError, match="cannot be told apart.*Odd.relu'"):
        replace_activations(model)
    assert not units(model) and type(model[0]) is SharedBlock
    report = replace_activations(model, shared=['Odd.relu'])
    assert report.num_units == 5
    assert replace_activations(
        nn.Sequential(nn.ReLU(), Odd()), pattern='^0').num_units == 1


class Bare(nn.Module):
    """Calls its activations with nothing in between."""

    def __init__(self):
        super().__init__()
        self.relu, self.act = nn.ReLU(), nn.SiLU()

    def forward(self, x):
        return self.relu(self.act(self.relu(x) - 1) + 1)


def test_calls_in_a_row_are_told_by_their_order():
    block = Bare().double()
    # One after the other: what was a layer between is replaced itself.
    for types in (['ReLU'], ['SiLU']):
        replace_activations(block, types=types)
    set_units(block, VALUES)
    x = torch.randn(5, 4, dtype=torch.float64)
    out = aglu64(aglu64(x, *VALUES[0]) - 1, *VALUES[2])
    for _ in range(2):
        torch.testing.assert_close(
            block(x), aglu64(out + 1, *VALUES[1]), rtol=1e-10, atol=0)


class Handed(SharedBlock):
    """Hands its activation to a function before the layer that runs first."""

    def forward(self, x):
        x = apply_to(self.relu, self.fc1(x))
        return apply_to(module=self.relu, x=self.fc2(x))


def apply_to(module, x):
    return module(x)


def test_a_module_that_is_handed_on_is_called_after_the_arguments():
    block = Handed().double()
    replace_activations(block)
    set_units(block, VALUES[:2])
    x = torch.randn(5, 4, dtype=torch.float64)
    out = aglu64(block.fc2(aglu64(block.fc1(x), *VALUES[0])), *VALUES[1])
    torch.testing.assert_close(block(x), out, rtol=1e-10, atol=0)


def test_whole_models_are_saved_and_loaded(tmp_path, monkeypatch):
    # Both processes number their hooks from 0.
    handle = 'torch.utils.hooks.RemovableHandle.next_id'
    monkeypatch.setattr(handle, 0)
    block = SharedBlock()
    replace_activations(block)
    set_units(block, VALUES)
    x = torch.randn(3, 4)
    expected = block(x)
    torch.save(block, tmp_path / 'whole.pth')
    script = (
        f'import sys, torch, test_replace\n{handle} = 0\n'
        'block, x, expected = (torch.load(p, weights_only=False)'
        ' for p in sys.argv[1:])\n'
        'for layer in (block.fc2, block.fc1, block):\n'
        '    for _ in range(9):\n'  # new hooks must not push ours out
        '        layer.register_forward_hook(lambda *a: None)\n'
        'torch.testing.assert_close(block(x), expected)\n')
    paths = [tmp_path / f'{name}.pth' for name in ('whole', 'x', 'expected')]
    torch.save(x, paths[1])
    torch.save(expected.detach(), paths[2])
    done = forked.run(['-c', script, *paths], cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr


def test_a_unit_that_cannot_know_its_call_says_so():
    block = SharedBlock()
    replace_activations(block)
    with pytest.raises(RuntimeError, match='cannot tell which of 3 units'):
        block.relu(torch.ones(1))


def test_a_module_listed_twice_becomes_two_units():
    act = nn.SiLU()
    model = nn.Sequential(act, nn.Linear(3, 3), act)
    assert replace_activations(model).num_units == 2
    assert model[0] is not model[2]


# --- which ones ---
def test_types_pattern_and_stages_limit_the_swap():
    model = nn.ModuleDict({
        'layer1': nn.Sequential(nn.ReLU()),
        'layer2': nn.Sequential(nn.SiLU()),
        'head': nn.Sequential(nn.GELU(), nn.GELU('tanh')),
    })

    def names(**kwargs):
        report = replace_activations(copy.deepcopy(model), **kwargs)
        return [swap.name for swap in report.swapped]

    assert names() == ['layer1.0', 'layer2.0', 'head.0', 'head.1']
    assert names(types=['GELU']) == ['head.0', 'head.1']
    assert names(pattern=r'^layer') == ['layer1.0', 'layer2.0']
    assert names(stages=[2]) == ['layer2.0']
    assert names(types=['ReLU'], stages=[1, 2]) == ['layer1.0']


@pytest.mark.parametrize('kwargs, match', [
    (dict(types=['PReLU']), r'no activation matches.*2 activation modules'),
    (dict(stages=[9]), 'no activation matches'),
    (dict(init='zeros'), "init must be one of"),
    (dict(relu_kappa=0.0), 'relu_kappa must be positive'),
])
def test_wrong_options_are_refused(kwargs, match):
    model = nn.Sequential(nn.ReLU(), nn.SiLU())
    with pytest.raises(ValueError, match=match):
        replace_activations(model, **kwargs)
    assert not units(model)


def test_a_model_without_activations_says_so():
    with pytest.raises(ValueError, match='no ReLU, SiLU or GELU modules'):
        replace_activations(nn.Linear(2, 2))


def test_random_start_and_options_reach_the_units():
    model = nn.Sequential(nn.ReLU(), nn.ReLU()).eval()
    replace_activations(
        model, init='random', act_cfg=dict(lambd_min=1e-8))
    first, second = units(model)
    assert first.kappa != second.kappa and 1 <= first.kappa <= 1.3
    assert first.lambd_min == 1e-8 and not first.training


# --- the switch for configs ---
def test_a_config_builds_the_swapped_model():
    torch.manual_seed(1)
    inner = dict(type='apa_mm.APAResNet', depth=18, act_cfg=dict(type='ReLU'))
    model = MODELS.build(
        dict(type='apa_mm.ReplacedActivations', model=inner, stages=[4]))
    # Two blocks with two units each and the attention's inner ReLU.
    assert type(model).__name__ == 'APAResNet'
    assert len(units(model)) == 6


def test_a_child_of_a_config_names_the_type_alone():
    model = MODELS.build(
        dict(type='apa_mm.ReplacedActivations', model='apa_mm.APAResNet',
             depth=18, act_cfg=dict(type='ReLU'), replace=dict(stages=[4])))
    assert type(model).__name__ == 'APAResNet' and model.depth == 18
    assert len(units(model)) == 6
