"""Shapes at 0 against derivatives, and histories read back."""
import json

import numpy as np
import pytest
import torch
from PIL import Image

from apa_mm.analysis import AnalysisError, parameter_rows
from apa_mm.analysis.parameters import (draw_pairs, plot_parameters,
                                        quantity)
from apa_mm.analysis.traces import draw_trace, read_trace, starts_of
from apa_mm.checkpoint import CheckpointError, inspect_file
from apa_mm.functional import aglu, apa
from apa_mm.functional.apa import eta_at_zero, gate_slope_at_zero
from apa_mm.layers.pairs import Pair


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


# --- the picture over depth ---
def pairs_of(shift=0.0):
    return [Pair(f'backbone.layer1.{i}.{site}', kind,
                 torch.tensor([1.0 + i + shift]), torch.tensor([0.5 + shift]))
            for i in range(3)
            for site, kind in (('act1', 'unit'), ('attention.gate', 'gate'))]


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is saved."""
    from matplotlib.figure import Figure
    saved, save = [], Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: (
        saved.append(figure), save(figure, *args, **kwargs)))
    return saved


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_every_run_is_a_line_in_every_panel(tmp_path, figures):
    path = tmp_path / 'p.png'
    draw_pairs(dict(a=pairs_of(), b=pairs_of(1.0)[:3]), str(path))
    assert path.read_bytes()[:4] == b'\x89PNG'
    panels = figures[0].axes
    assert [axis.get_title() for axis in panels[:2]] == [
        'AGLU units', 'APA gates']
    points = [[list(line.get_ydata()) for line in axis.lines]
              for axis in panels]
    assert points[2] == [[1, 2, 3], [2, 3]]  # kappa of the units
    assert points[3] == [[1, 2, 3], [2]]
    assert legend_of(figures[0]) == ['a', 'b']


def test_starts_are_joined_to_their_ends(tmp_path, figures):
    ends, starts = pairs_of(), pairs_of(-0.25)[1:]
    draw_pairs(dict(run=ends), str(tmp_path / 'p.png'),
               starts=dict(run=starts))
    for axis, number in zip(figures[0].axes, (2, 3, 2, 3), strict=True):
        later, earlier = axis.lines
        assert len(later.get_xdata()) == 3
        assert len(earlier.get_xdata()) == number
        assert later.get_linestyle() == 'None'
        joined, = axis.collections
        for (x, low), (same, high) in joined.get_segments():
            assert x == same and high - low == pytest.approx(0.25)
        assert len(joined.get_segments()) == number
    assert legend_of(figures[0]) == ['run (end)', 'run (start)']


def test_panels_without_sites_are_left_out(tmp_path, figures):
    units = [pair for pair in pairs_of() if pair.kind == 'unit']
    draw_pairs(dict(run=units), str(tmp_path / 'p.png'))
    assert [axis.get_title() for axis in figures[0].axes] == [
        'AGLU units', '']
    names = [t.get_text() for t in figures[0].axes[1].get_xticklabels()]
    assert names == [f'layer1.{i}.act1' for i in range(3)]


def test_starts_are_found_beside_the_checkpoint(tmp_path):
    write_scalars(tmp_path / '2026' / 'vis_data' / 'scalars.json')
    one = torch.ones(1)
    pairs = [Pair('backbone.act1', 'unit', one, one),
             Pair('neck.act', 'unit', one, one)]
    start, = starts_of(str(tmp_path / 'iter_500.pth'), pairs)
    assert start.name == 'backbone.act1'
    assert start.kappa.item() == pytest.approx(1.01)
    assert start.lambd.item() == 0.5
    assert starts_of(str(tmp_path / '2026' / 'a.pth'), pairs) == []


def test_files_are_plotted_by_their_names(tmp_path, figures):
    paths = []
    for name in ('a.pth', 'b.pth', 'bare.pth'):
        paths.append(str(tmp_path / name))
        state = {f'{pair.name}.{leaf}': getattr(pair, leaf)
                 for pair in pairs_of() for leaf in ('kappa', 'lambd')}
        torch.save(state if name != 'bare.pth' else dict(a=torch.ones(1)),
                   paths[-1])
    *files, bare = map(inspect_file, paths)
    plot_parameters(files, str(tmp_path / 'p.png'))
    assert legend_of(figures[0]) == ['a.pth', 'b.pth']
    write_scalars(tmp_path / '2026' / 'vis_data' / 'scalars.json')
    plot_parameters(files, str(tmp_path / 'p.png'))
    # The trace has one of their gates.
    assert [len(axis.lines) for axis in figures[1].axes] == [2, 4, 2, 4]
    with pytest.raises(CheckpointError, match='none of the files has kappa'):
        plot_parameters([bare], str(tmp_path / 'q.png'))
    with pytest.raises(CheckpointError, match='cannot be written'):
        plot_parameters(files, str(tmp_path / 'no' / 'p.png'))
