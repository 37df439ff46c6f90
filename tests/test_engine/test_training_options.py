"""What users switch on in training, on the demo's own config."""
import json

import pytest
import torch
from support.configs import narrow, parsed
from support.demo_jobs import CONFIG, OPTIONS, write_data
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from apa_mm.engine import launch
from apa_mm.layers import AGLU, APA
from apa_mm.weights import read_checkpoint

pytestmark = pytest.mark.slow


@HOOKS.register_module(force=True)
class Recorder(Hook):
    """Keeps the losses, and the parameters before every iteration."""

    losses: list = []
    states: list = []
    types: set = set()

    def before_train(self, runner):
        Recorder.losses, Recorder.states = [], [self.state(runner)]
        for module in runner.model.modules():
            if isinstance(module, (APA, AGLU)):
                module.register_forward_hook(
                    lambda m, x, y: Recorder.types.add(y.dtype))

    @staticmethod
    def state(runner):
        return {
            name: parameter.detach().clone()
            for name, parameter in runner.model.named_parameters()
        }

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None):
        Recorder.losses.append(outputs['loss'].item())
        Recorder.states.append(self.state(runner))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('demo'))


@pytest.fixture
def train(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)

    def start(options=(), hooks=(), **kwargs):
        hooks = [
            dict(type='apa_mm.ClassFrequencyHook', allow_empty=True),
            dict(type='Recorder'), *hooks
        ]
        model = launch.train(
            CONFIG,
            work_dir=str(tmp_path / 'run'),
            cfg_options={
                **{k: v for k, v in OPTIONS.items()
                   if not k.startswith('custom_hooks')},
                **narrow(parsed(CONFIG)),
                'custom_hooks': hooks,
                **dict(options)
            },
            **kwargs)
        return model, tmp_path / 'run'

    return start


def learned(state):
    return [n for n in state if n.split('.')[-1] in ('kappa', 'lambd')]


def moved(before, after):
    return {n for n in before if not torch.equal(before[n], after[n])}


def both_moved(before, after, least=1):
    """Return whether ``least`` kappas and as many lambdas moved."""
    names = [n.split('.')[-1] for n in moved(before, after)]
    return min(names.count('kappa'), names.count('lambd')) >= least


def test_mixed_precision(train):
    Recorder.types = set()
    train(amp=True)
    # Behind a LayerNorm, which autocast keeps in float32, a gate is float32.
    assert torch.bfloat16 in Recorder.types
    assert len(Recorder.losses) == 2
    assert all(torch.isfinite(torch.tensor(v)) for v in Recorder.losses)
    states = Recorder.states
    assert all(v.dtype == torch.float32 for v in states[0].values())
    assert both_moved(states[0], states[-1], least=20)


def test_accumulated_gradients_step_every_second_iteration(train):
    train({'optim_wrapper.accumulative_counts': 2, 'train_cfg.max_iters': 4,
           # Without the schedule's warm-up from zero.
           'param_scheduler': []})
    first, *rest = Recorder.states
    assert moved(first, rest[0]) == set()
    assert both_moved(rest[0], rest[1])
    assert moved(rest[1], rest[2]) == set()
    assert both_moved(rest[2], rest[3])


def test_clipping_bounds_the_step_of_all_parameters_together(train):
    train({
        'train_cfg.max_iters': 1,
        'param_scheduler': [],
        'optim_wrapper.clip_grad.max_norm': 1e-3,
        'optim_wrapper.optimizer': dict(
            _delete_=True, type='SGD', lr=1., weight_decay=0.),
    })
    before, after = Recorder.states
    steps = {n: (after[n] - before[n]).double() for n in before}
    norm = torch.stack([s.square().sum() for s in steps.values()]).sum()
    # The clipped norm is at most 1e-3; rounding of weights near 1 is 6e-8
    # each, times the root of their number.
    assert 0 < norm.sqrt() < 1.3e-3
    assert both_moved(before, after)


def test_the_moving_average_has_kappa_and_lambda_and_is_evaluated(train):
    _, run = train({
        'param_scheduler': [],
        'train_cfg.val_interval': 2,
    }, hooks=[dict(type='EMAHook', momentum=0.5)])
    before, middle, after = Recorder.states
    saved = read_checkpoint(str(run / 'iter_2.pth')).content
    names = learned(before)
    assert both_moved(before, after, least=20)
    for name in names:
        # mmengine saves the average as the model: its first step copies.
        average = saved['state_dict'][name]
        plain = saved['ema_state_dict'][f'module.{name}']
        torch.testing.assert_close(plain, after[name])
        torch.testing.assert_close(average, (middle[name] + after[name]) / 2)
    scalars, = run.glob('*/vis_data/scalars.json')
    logged = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert any('lvis/bbox_AP' in line for line in logged)
