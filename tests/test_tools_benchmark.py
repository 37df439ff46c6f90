"""What the activation benchmark compares with, and how it counts bytes."""
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from apa_mm.functional import aglu

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


def test_other_parts_do_not_run_on_a_gpu():
    result = subprocess.run(
        [sys.executable, str(TOOLS / 'benchmark.py'), 'nms', '--device',
         'cuda'], capture_output=True, text=True)
    assert result.returncode == 2
    assert '--device cuda' in result.stderr
