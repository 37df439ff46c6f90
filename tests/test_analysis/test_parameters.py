"""Shapes at 0 against derivatives, and histories read back."""
import json

import numpy as np
import pytest
import torch
from PIL import Image

from apa_mm.analysis import AnalysisError, parameter_rows
from apa_mm.analysis.parameters import read_trace
from apa_mm.analysis.views.parameters import draw_trace
from apa_mm.analysis.parameter_plot import quantity
from apa_mm.functional import aglu, apa
from apa_mm.layers.pairs import Pair
from apa_mm.functional.shape import eta_at_zero, gate_slope_at_zero


@pytest.mark.parametrize('kappa', [-0.7, 0.0, 1.0, 3.0])
@pytest.mark.parametrize('lambd', [1e-4, 0.3, 1.0, 5.0])
def test_closed_forms_are_values_and_derivatives_of_the_operators(
        kappa, lambd):
    x = torch.zeros((), dtype=torch.float64, requires_grad=True)
    k, m = (torch.tensor([v], dtype=torch.float64) for v in (kappa, lambd))
    gate = apa(x, kappa=k, lambd=m)
    unit = aglu(x, kappa=k, lambd=m)
    slope, = torch.autograd.grad(gate, x)
    unit_slope, = torch.autograd.grad(unit, x)
    assert eta_at_zero(m).item() == pytest.approx(gate.item(), rel=1e-9)
    assert gate_slope_at_zero(k, m).item() == pytest.approx(
        slope.item(), rel=1e-8, abs=1e-12)
    assert quantity(Pair('a', 'unit', k, m), 'slope').item() == (
        pytest.approx(unit_slope.item(), rel=1e-8))
    assert quantity(Pair('a', 'gate', k, m), 'slope').item() == (
        pytest.approx(slope.item(), rel=1e-8, abs=1e-12))


def test_limits():
    small = torch.tensor([1e-12], dtype=torch.float64)
    assert eta_at_zero(small).item() == pytest.approx(0.36787944117)


def test_rows_count_units_and_gates_apart():
    one = torch.ones(1)
    rows = parameter_rows([
        Pair('act1', 'unit', 1.5 * one, one),
        Pair('attention.gate', 'gate', -one, torch.tensor([0.5, 1.5])),
        Pair('act2', 'unit', torch.tensor([1.0, 3.0]), -one),
    ])
    assert [(r['site'], r['depth'], r['values']) for r in rows] == [
        ('act1', 1, 1), ('attention.gate', 1, 1), ('act2', 2, 2)]
    assert rows[0]['slope'] == rows[0]['eta0'] == 0.5
    # Below the floor lambda counts as 1e-4.
    assert rows[2]['lambd'] == pytest.approx(1e-4)
    assert rows[2]['kappa'] == 2
    assert rows[1]['slope'] < 0 < rows[1]['eta0']


def write_scalars(path, steps=(1, 100)):
    path.parent.mkdir(parents=True)
    with open(path, 'w') as file:
        for step in steps:
            file.write(json.dumps(dict(loss=1.0, step=step)) + '\n')
            file.write(json.dumps({
                'apa/backbone.act1/kappa': 1 + step / 100,
                'apa/backbone.act1/lambd': 0.5,
                'apa/backbone.layer1.0.attention.gate/kappa': -0.5,
                'apa/backbone.layer1.0.attention.gate/lambd': step / 1000,
                'step': step
            }) + '\n')


def test_a_history_is_read_from_a_run(tmp_path):
    write_scalars(tmp_path / '2026' / 'vis_data' / 'scalars.json')
    trace = read_trace(str(tmp_path))
    assert trace['backbone.act1'] == dict(
        step=[1, 100], kappa=[1.01, 2.0], lambd=[0.5, 0.5])
    pictures = []
    for last in (2.0, 9.0):
        trace['backbone.act1']['kappa'][1] = last
        draw_trace(trace, str(tmp_path / 'history.png'))
        pictures.append(np.asarray(Image.open(
            tmp_path / 'history.png').convert('RGB')).astype(float))
    assert pictures[0].std() > 5 and (pictures[0] != pictures[1]).any()


def test_runs_without_a_history(tmp_path):
    with pytest.raises(AnalysisError, match='has no vis_data/scalars.json'):
        read_trace(str(tmp_path))
    path = tmp_path / 'vis_data' / 'scalars.json'
    path.parent.mkdir()
    path.write_text('{"loss": 1.0, "step": 1}\n')
    with pytest.raises(AnalysisError, match='ParameterTraceHook'):
        read_trace(str(path))
    path.write_text('not JSON')
    with pytest.raises(AnalysisError, match='cannot be read'):
        read_trace(str(path))
