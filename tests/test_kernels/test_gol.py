"""The compiled CPU form of the GOL loss."""
import pytest
import torch

from apa_mm.functional import gol_loss
from apa_mm.kernels import gol, native

pytestmark = pytest.mark.skipif(
    native.library() is None, reason='no C++ compiler on this machine')

# exp(-e) with e up to 87: 87 roundings of float32.
RTOL = 1e-5


def run(scores, labels, **kwargs):
    leaf = scores.clone().requires_grad_()
    losses = gol_loss(leaf, labels, **kwargs)
    losses.sum().backward()
    return losses.detach(), leaf.grad


@pytest.mark.parametrize('clamp', [(-10, 10), (-80, 80), (-4, 1.5)])
def test_every_score_agrees_with_float64(clamp):
    scores = torch.cat([
        torch.linspace(-12, 12, 6000), torch.linspace(-90, 90, 3000),
        torch.tensor([-10., 10., -80., 80., 0.693, 0.694])
    ])[None]
    for label in (9006, 3000):  # background and a foreground row
        labels = torch.tensor([label])
        losses, grad = run(scores, labels, clamp=clamp)
        want = run(scores.double(), labels, clamp=clamp)
        torch.testing.assert_close(
            losses.double(), want[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(
            grad.double(), want[1], rtol=RTOL, atol=1e-36)
    # One by one, since a sum hides a wrong small term.
    column = scores.t().contiguous()
    labels = torch.ones(len(column), dtype=torch.long)
    losses, _ = run(column, labels, clamp=clamp)
    want, _ = run(column.double(), labels, clamp=clamp)
    torch.testing.assert_close(losses.double(), want, rtol=RTOL, atol=1e-36)


def test_nan_is_seen():
    losses, grad = run(torch.tensor([[torch.nan, 1.]]), torch.tensor([2]))
    assert losses.isnan().all() and grad[0, 0].isnan()
    assert grad[0, 1] > 0


def test_draws_follow_the_seed_and_not_the_threads():
    scores, rare = torch.randn(40, 3000), torch.rand(3000) < 0.7
    labels = torch.full((40, ), 3000)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(3)
            results.append(run(scores, labels, rare=rare, ratio=0.4))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))
    kept = results[0][1] != 0
    assert not torch.equal(run(scores, labels, rare=rare, ratio=0.4)[1] != 0,
                           kept)
    # Rows and columns are independent: all pairs agree as chance says.
    drawn = kept[:, rare].double()
    chance = 0.4**2 + 0.6**2
    for a, b in ((drawn[1:], drawn[:-1]), (drawn[:, 1:], drawn[:, :-1]),
                 (drawn[1:, 1:], drawn[:-1, :-1])):
        assert abs((a == b).double().mean() - chance) < 0.01


def test_what_it_cannot_walk_goes_to_the_chunks(monkeypatch):
    calls = []
    forward = gol._native
    monkeypatch.setattr(gol, '_native',
                        lambda *a: calls.append(1) or forward(*a))
    labels = torch.tensor([0, 1])
    for scores in (torch.zeros(2, 3), torch.zeros(3, 2).t(),
                   torch.zeros(2, 3).half(), torch.zeros(2, 3).double()):
        gol_loss(scores, labels)
    gol_loss(torch.zeros(2, 3), labels, activation='sigmoid')
    monkeypatch.setenv('APA_MM_BACKEND', 'eager')
    gol_loss(torch.zeros(2, 3), labels)
    assert len(calls) == 3
