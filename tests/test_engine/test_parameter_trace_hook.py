"""kappa and lambda reach the visualizer's backends while training."""
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from apa_mm.analysis.traces import read_trace
from apa_mm.engine.hooks import ParameterTraceHook
from apa_mm.layers import AGLU, APA
from apa_mm.registry import HOOKS
from apa_mm.utils.imports import HAS_MMPRETRAIN


class Backend:
    """Keeps what a visualizer would write."""

    def __init__(self):
        self.scalars = []

    def add_scalars(self, scalars, step):
        self.scalars.append((step, scalars))


def train(hook, model, iterations):
    """Call the hook as a loop of mmengine does."""
    said = []
    runner = SimpleNamespace(
        model=model, iter=0, visualizer=Backend(),
        logger=SimpleNamespace(info=said.append, warning=said.append))
    hook.before_train(runner)
    for step in range(iterations):
        runner.iter = step
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01
        hook.after_train_iter(runner, 0)
    runner.iter = iterations
    hook.after_train(runner)
    return runner.visualizer, said


def two_sites():
    return nn.ModuleDict(dict(
        act=AGLU(num_parameters=2, kappa_init=1.0, lambd_init=0.5),
        gate=APA(kappa_init=-1.0, lambd_init=-3.0)))


def test_entries_come_at_their_interval_first_and_last():
    seen, _ = train(ParameterTraceHook(interval=4), two_sites(), 10)
    assert [step for step, _ in seen.scalars] == [0, 4, 8, 10]
    assert seen.scalars[1][1] == pytest.approx({
        'apa/act/kappa': 1.04,
        'apa/act/lambd': 0.54,
        'apa/gate/kappa': -0.96,
        'apa/gate/lambd': 1e-4  # as used: not below the floor
    }, abs=1e-6)


def test_the_last_entry_is_not_made_twice():
    seen, _ = train(ParameterTraceHook(interval=4), two_sites(), 8)
    assert [step for step, _ in seen.scalars] == [0, 4, 8]


def test_channels_are_averaged():
    model = two_sites()
    with torch.no_grad():
        model['act'].kappa.copy_(torch.tensor([1.0, 4.0]))
    seen, _ = train(ParameterTraceHook(interval=1), model, 1)
    assert seen.scalars[1][1]['apa/act/kappa'] == pytest.approx(2.51)


def test_a_model_without_parameters_costs_one_line():
    seen, said = train(ParameterTraceHook(1), nn.Linear(1, 1), 3)
    assert not seen.scalars
    assert said == ['ParameterTraceHook: the model has no APA and no AGLU, '
                    'so there is nothing to trace']


def test_wrapped_models_have_the_same_names():
    seen, _ = train(ParameterTraceHook(1), nn.DataParallel(two_sites()), 1)
    assert 'apa/act/kappa' in seen.scalars[0][1]


def test_bad_settings():
    with pytest.raises(ValueError, match='1 iteration or more, but got 0'):
        HOOKS.build(dict(type='apa_mm.ParameterTraceHook', interval=0))


@pytest.mark.skipif(not HAS_MMPRETRAIN, reason='mmpretrain missing')
def test_a_real_run_leaves_scalars(tmp_path):
    from support import tiny_classifier
    head = dict(type='mmpretrain.LinearClsHead',
                loss=dict(type='mmpretrain.CrossEntropyLoss'))
    runner = tiny_classifier.runner(
        tmp_path, tiny_classifier.classifier(head),
        visualizer=dict(
            type='mmengine.Visualizer', name=f'trace-{tmp_path.name}',
            vis_backends=[dict(type='mmengine.LocalVisBackend')]),
        custom_hooks=[dict(type='apa_mm.ParameterTraceHook', interval=1)])
    runner.train()
    trace = read_trace(str(tmp_path))
    model = runner.model
    assert len(trace) == 28 and trace['backbone.act1']['step'] == [0, 1, 2]
    assert trace['backbone.act1']['kappa'][-1] == pytest.approx(
        model.backbone.act1.kappa.item(), rel=1e-6)
    lines = next(tmp_path.glob('*/vis_data/scalars.json')).read_text()
    assert 'loss' in json.loads(lines.splitlines()[-1]) or 'apa/' in lines
