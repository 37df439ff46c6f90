"""What the activation benchmark compares with, and how it counts bytes."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import forked

from apa_mm.functional import aglu
from apa_mm.kernels import native

compiler = pytest.mark.skipif(
    native.library() is None, reason='no C++ compiler on this machine')
TOOLS = Path(__file__).parents[1] / 'tools'


@pytest.fixture
def act(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    from benchmarks import act
    return act


def test_the_reference_is_the_papers_function(act):
    x, grad = torch.randn(2, 50)
    results = []
    for function in (act.ReferenceAGLU.apply, lambda x, k, la: aglu(
            x, kappa=k, lambd=la, lambda_grad='paper')):
        leaves = [t.clone().requires_grad_()
                  for t in (x, torch.tensor([1.1]), torch.tensor([0.5]))]
        out = function(*leaves)
        out.backward(grad)
        results.append([out.detach(), *(t.grad for t in leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_bytes_are_counted_exactly(act):
    x = torch.randn(1000, 30)
    kinds = act.activations()
    kept = {name: act.saved_bytes(f, x) for name, f in kinds.items()}
    assert kept['ours'] == kept['eager form'] == kept['SiLU'] == 4
    assert kept['reference'] == 8
    assert kept['torch.library'] == 4
    results = []
    for name in ('ours', 'torch.library'):
        leaf = x.clone().requires_grad_()
        out = kinds[name](leaf)
        results.append((out, *torch.autograd.grad(out.square().sum(), leaf)))
    torch.testing.assert_close(*results)
    # The result and the gradient of the input, and little else.
    assert 8 <= act.peak_bytes(kinds['SiLU'], x) < 8.1
    assert act.peak_bytes(kinds['reference'], x) > 15


def test_rows_of_the_activation_benchmark(act, monkeypatch):
    monkeypatch.setattr(act, 'SIZES', ((10, 10), ))
    rows = act.run(repeats=1)
    cases = [row['case'] for row in rows]
    for name in ('torch.library', 'reference', 'Mish', 'GELU', 'SiLU', 'ReLU'):
        assert f'10x10 vs {name}' in cases
        assert f'kept for backward vs {name}' in cases
    assert '10x10 backward vs copy' in cases
    for row in rows:
        assert row['ratio'] == pytest.approx(row['ours'] / row['theirs'])


@compiler
def test_forward_mode_through_the_operator_is_zero(act):
    """Why it is not used: torch.library has no rule for it, and no error."""
    x, one = torch.randn(2, 5)
    pair = torch.tensor([1.1]), torch.tensor([0.5])
    slopes = [torch.func.jvp(f, (x, ), (one, ))[1] for f in (
        lambda x: act.library_aglu(x, *pair),
        lambda x: aglu(x, kappa=pair[0], lambd=pair[1]))]
    assert not slopes[0].any() and slopes[1].all()


@compiler
@pytest.mark.slow
def test_what_is_fused_is_counted(act, monkeypatch):
    from benchmarks import compiled
    monkeypatch.setattr(compiled, 'QUICK_SIZE', (100, 64))
    rows = {(row['case'], row['unit']): row
            for row in compiled.run(repeats=1, quick=True)}
    size = 'bytes per element'
    for way in ('forward, without gradients', 'forward'):
        for name, kernels, moved in (('torch.library', 3, 24), ('SiLU', 1, 8)):
            row = rows[f'{way}, vs {name}', 'kernels']
            assert (row['ours'], row['theirs']) == (1, kernels)
            row = rows[f'{way}, vs {name}', size]
            assert (row['ours'], row['theirs']) == pytest.approx(
                (8, moved), abs=0.1)
    assert rows['backward, vs SiLU', size]['theirs'] == pytest.approx(12)
    assert rows['backward, vs ours in eager mode', 'ms']['ours'] > 0


def test_other_parts_do_not_run_on_a_gpu():
    result = forked.run([TOOLS / 'benchmark.py', 'nms', '--device', 'cuda'])
    assert result.returncode == 2
    assert '--device cuda' in result.stderr


def benchmark(*args, **env):
    return subprocess.run(
        [sys.executable, str(TOOLS / 'benchmark.py'), *args],
        capture_output=True, text=True, env={**os.environ, **env})


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a card')
def test_without_a_card_the_gpu_part_says_so():
    result = benchmark('gpu')
    assert result.returncode == 2 and not result.stdout
    assert 'gpu: no CUDA device' in result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a card')
def test_the_gpu_part_runs_in_the_interpreter(tmp_path):
    pytest.importorskip('triton', reason='no Triton: its kernels do not run')
    pytest.importorskip('mmdet')
    result = benchmark('gpu', '--quick', '--repeats', '1', '--json',
                       str(tmp_path / 'a.json'), TRITON_INTERPRET='1')
    assert not result.returncode, result.stderr
    content = json.loads((tmp_path / 'a.json').read_text())
    cases = ' '.join(row['case'] for row in content['results']['gpu'])
    for text in ('2x256x3x2 vs reference', 'vs Mish', 'vs SiLU',
                 'backward vs copy', 'bottleneck 2x256x3x2', 'GOL, 5 classes'):
        assert text in cases


def test_rows_of_the_detector_benchmark(monkeypatch):
    pytest.importorskip('mmdet')
    monkeypatch.syspath_prepend(str(TOOLS))
    from benchmarks import detector
    sides = {who: dict(test=n, test_peak=n, train=n, train_peak=n)
             for who, n in dict(ours=2, softmax=4, seesaw=6).items()}
    monkeypatch.setattr(detector, 'spawn', lambda name, who, *args: sides[who])
    rows = detector.run()
    assert [(row['ratio'], row['unit']) for row in rows[:2]] == [
        (2, 's'), (2, 's')]
    assert rows[-1]['case'] == 'v3det, test image, peak, vs seesaw'
    assert rows[-1]['ratio'] == 3 and len(rows) == 16
