"""Tests of the Gumbel probability, its BCE and the GOL loss function."""
import math

import pytest
import torch
import torch.nn.functional as F
from support.reference import TOLERANCES
from torch.autograd import gradcheck

from apa_mm.functional import (count_foreground, gol_loss, gumbel,
                               rare_ratio)
from apa_mm.kernels import gol

# Loss by score for both targets, from the paper's formula.
SCORES = (-10., -4., -2., 0., 2., 10.)
POSITIVE = (22026.47, 54.5982, 7.38906, 1.0, 0.135335, 4.53999e-5)
NEGATIVE = (0., 1.9e-24, 6.1817e-4, 0.458675, 2.066905, 10.00002)

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def bce(score, target):
    """Return loss and slope of one element, by Python's own functions."""
    e = math.exp(-score)
    if target:
        return e, -e
    q = math.expm1(e) if e < 700 else math.inf
    loss = (-math.log(-math.expm1(-e)) if e < math.log(2) else
            -math.log1p(-math.exp(-e)))
    return loss, e / q


def softplus_bce(score, target):
    """Return loss and slope of ordinary BCE with logits."""
    p = 1 / (1 + math.exp(-score))
    return -math.log(p if target else 1 - p), p - target


def slow_gol(scores, labels, keep, limits=(-10, 10), element=bce):
    """Return losses per RoI and the gradient of their sum, by loops.

    ``keep[i][j]`` says whether the negative of class j counts on row i.
    """
    losses, grads = [], []
    for row, label, kept in zip(
            scores.tolist(), labels.tolist(), keep, strict=True):
        total, slopes = 0.0, []
        for j, score in enumerate(row):
            clipped = min(max(score, limits[0]), limits[1])
            loss, slope = element(clipped, j == label)
            counts = j == label or kept[j]
            total += loss * counts
            slopes.append(slope * counts * (clipped == score))
        losses.append(total)
        grads.append(slopes)
    return (torch.tensor(losses, dtype=torch.float64),
            torch.tensor(grads, dtype=torch.float64))


def with_grad(function, x, *args, **kwargs):
    x = x.clone().requires_grad_()
    out = function(x, *args, **kwargs)
    grad, = torch.autograd.grad(out.sum(), x)
    return out.detach(), grad


def batch(n=12, c=7, dtype=torch.float64):
    """Return scores in and out of the clamp, labels, and three rare classes.

    Rows are foreground and background by turns; the first is rare.
    """
    scores = torch.randn(n, c, dtype=dtype) * 5
    labels = torch.full((n, ), c)
    labels[::2] = torch.arange(0, n, 2) % c
    rare = torch.zeros(c, dtype=torch.bool)
    rare[[0, 2, 5]] = True
    return scores, labels, rare


def all_kept(scores, labels, rare, background_keeps):
    """Return the drop rule for a probability of 0 or 1."""
    c = scores.size(1)
    return [[
        not is_rare or (label == c and background_keeps)
        for is_rare in rare.tolist()
    ] for label in labels.tolist()]


# --- probability ------------------------------------------------------------
@pytest.mark.parametrize('dtype', DTYPES)
def test_gumbel_values(dtype):
    x = torch.linspace(-3, 6, 19, dtype=dtype)
    expected = [math.exp(-math.exp(-v)) for v in x.tolist()]
    out = gumbel(x)
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.double(),
        torch.tensor(expected, dtype=torch.float64),
        rtol=TOLERANCES[dtype],
        atol=6e-8 if dtype == torch.float16 else 0)  # its smallest number


@pytest.mark.parametrize('dtype', DTYPES)
def test_gumbel_is_finite_everywhere(dtype):
    x = torch.tensor([-1e4, -89., -5., 0., 5., 89., 1e4], dtype=dtype)
    out, grad = with_grad(gumbel, x)
    assert torch.isfinite(out).all() and torch.isfinite(grad).all()
    assert out[0] == 0 and out[-1] == 1 and grad[0] == 0 == grad[-1]
    # The slope at 0 is exp(-1).
    assert grad[3].item() == pytest.approx(0.36788, rel=1e-2)


def test_gumbel_gradient():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(gumbel, x)
    assert gradcheck(gumbel, x.t())


@pytest.mark.parametrize('shape', [(), (0, ), (2, 0)])
def test_gumbel_shapes(shape):
    out, grad = with_grad(gumbel, torch.zeros(shape))
    assert out.shape == grad.shape == shape


def test_gumbel_keeps_the_memory_format():
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert gumbel(x).is_contiguous(memory_format=torch.channels_last)
    assert gumbel(x.half()).is_contiguous(memory_format=torch.channels_last)


def test_gumbel_wants_floats():
    with pytest.raises(TypeError, match=r'x must be a floating.*int64.*float'):
        gumbel(torch.arange(3))


# --- BCE of one class -------------------------------------------------------
def one_class(scores, target, **kwargs):
    """Return the loss of RoIs (N,) of class 0, or of the background."""
    labels = torch.full((len(scores), ), int(not target))
    return gol_loss(scores[:, None], labels, **kwargs)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('target, expected', [(1., POSITIVE), (0., NEGATIVE)])
def test_bce_table(dtype, target, expected):
    scores = torch.tensor(SCORES, dtype=dtype)
    out = one_class(scores, target)
    # The table has six digits, its smallest entry two.
    torch.testing.assert_close(
        out, torch.tensor(expected, dtype=dtype), rtol=3e-2, atol=0)
    torch.testing.assert_close(
        out, torch.tensor(expected, dtype=dtype), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize('dtype', DTYPES)
def test_bce_of_every_dtype(dtype):
    logits = torch.linspace(-9.5, 9.5, 77).to(dtype)
    for target in (0., 1.):
        out, grad = with_grad(one_class, logits, target)
        expected = [bce(v, target) for v in logits.tolist()]
        losses, slopes = torch.tensor(expected, dtype=torch.float64).t()
        assert grad.dtype == dtype
        rtol = 1e-10 if dtype == torch.float64 else 1e-5
        # float32 has no numbers below 1e-38.
        torch.testing.assert_close(out.double(), losses, rtol=rtol, atol=1e-37)
        torch.testing.assert_close(
            grad.double(), slopes, rtol=TOLERANCES[dtype], atol=1e-7)


def test_bce_has_no_gradient_outside_of_the_clamp():
    logits = torch.tensor([-2.001, -2., 0., 3., 3.001])
    for target in (0., 1.):
        out, grad = with_grad(one_class, logits, target, clamp=(-2, 3))
        assert (grad != 0).tolist() == [False, True, True, True, False]
        assert out[0] == out[1] and out[3] == out[4]


@pytest.mark.parametrize('kwargs, match', [
    (dict(clamp=(3, -3)), r'-80 <= low < high <= 80, but got \(3, -3\)'),
    (dict(clamp=(-100, 10)), 'clamp must be two numbers'),
    (dict(clamp=5.), 'clamp must be two numbers'),
    (dict(clamp=(-math.inf, 10)), 'clamp must be two numbers'),
])
def test_bce_errors(kwargs, match):
    with pytest.raises(ValueError, match=match):
        one_class(torch.zeros(2), 0, **kwargs)


# --- GOL --------------------------------------------------------------------
@pytest.fixture(params=['auto', 'eager'], autouse=True)
def backend(request, monkeypatch):
    monkeypatch.setenv('APA_MM_BACKEND', request.param)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('ratio', [0., 1.])
@pytest.mark.parametrize('chunk', [2**17, 20, 1])
def test_gol_agrees_with_loops(dtype, ratio, chunk, monkeypatch):
    monkeypatch.setattr(gol, 'CHUNK', chunk)
    scores, labels, rare = batch(dtype=dtype)
    losses, grad = with_grad(gol_loss, scores, labels, rare=rare, ratio=ratio)
    expected = slow_gol(scores, labels, all_kept(scores, labels, rare, ratio))
    assert losses.dtype == grad.dtype == dtype
    rtol = 1e-10 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(losses.double(), expected[0], rtol=rtol, atol=0)
    torch.testing.assert_close(
        grad.double(), expected[1], rtol=rtol, atol=1e-12)


def test_gol_without_rare_classes_is_the_sum_of_bce():
    scores, labels, _ = batch()
    expected = slow_gol(scores, labels, [[True] * 7] * 12)
    losses, grad = with_grad(gol_loss, scores, labels)
    torch.testing.assert_close(losses, expected[0])
    torch.testing.assert_close(grad, expected[1])


def test_gol_with_sigmoid_is_torchs_bce():
    scores, labels, rare = batch()
    target = F.one_hot(labels, 8)[:, :7].double()
    expected = F.binary_cross_entropy_with_logits(
        scores, target, reduction='none')
    torch.testing.assert_close(
        gol_loss(scores, labels, activation='sigmoid'), expected.sum(1))
    # The default has no limits: a score of 300 still has a gradient.
    losses, grad = with_grad(
        gol_loss,
        torch.tensor([[300., -300.]]),
        torch.tensor([1]),
        activation='sigmoid')
    assert losses.tolist() == [600.] and grad.tolist() == [[1., -1.]]
    kwargs = dict(rare=rare, ratio=0., activation='sigmoid', clamp=(-2, 3))
    losses, grad = with_grad(gol_loss, scores, labels, **kwargs)
    loops = slow_gol(scores, labels, all_kept(scores, labels, rare, False),
                     (-2, 3), softplus_bce)
    torch.testing.assert_close(losses, loops[0])
    torch.testing.assert_close(grad, loops[1])


@pytest.mark.parametrize('activation', ['gumbel', 'sigmoid'])
def test_gol_gradcheck(activation):
    scores, labels, rare = batch(6, 4 + 3)
    labels[1] = -100
    weight = torch.rand(6, dtype=torch.float64)
    scores = (scores / 3).requires_grad_()

    def total(x):
        return gol_loss(
            x, labels, rare=rare, ratio=1., activation=activation) * weight

    assert gradcheck(total, scores)
    assert gradcheck(lambda x: total(x.t()),
                     scores.detach().t().contiguous().requires_grad_())


def test_gol_clamp_borders():
    scores = torch.tensor([[-3.001, -3., 0., 2., 2.001]])
    for label in range(6):
        losses, grad = with_grad(
            gol_loss, scores, torch.tensor([label]), clamp=(-3, 2))
        assert (grad != 0).tolist() == [[False, True, True, True, False]]
        same = gol_loss(
            scores.clamp(-3, 2), torch.tensor([label]), clamp=(-3, 2))
        assert torch.equal(losses, same)


@pytest.mark.parametrize('labels, ratio, kept_on_background', [
    ([2, 3, 4, 4], 0.0, 0),  # foreground, none of it rare
    ([0, 1, 4, 4], 1.0, 2),  # all foreground rare
    ([4, 4, 4, 4], 1.0, 2),  # no foreground: everything is kept
    ([-100, -100, 4, 4], 1.0, 2),
])
def test_drop_rule(labels, ratio, kept_on_background):
    rare = torch.tensor([True, True, False, False])
    labels = torch.tensor(labels)
    assert rare_ratio(count_foreground(labels, rare)) == ratio
    _, grad = with_grad(gol_loss, torch.zeros(4, 4), labels, rare=rare)
    for row, label in zip(grad, labels.tolist(), strict=True):
        kept = int((row[:2] > 0).sum())
        assert kept == (kept_on_background if label == 4 else 0)
        # Classes that are not rare always count, and so does the target.
        if label != -100:
            assert (row[2:] != 0).all()
        if 0 <= label < 4:
            assert row[label] == -1


@pytest.mark.parametrize('ratio', [0.5, 0.1, 0.97])
@pytest.mark.parametrize('common', [0, 1])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_half_dropped_negatives(ratio, common, dtype):
    n, c = 400, 50
    rare = torch.arange(c) % 5 != common
    labels = torch.full((n, ), c)
    labels[:100] = 3
    scores = torch.randn(n, c, dtype=dtype)
    losses, grad = with_grad(gol_loss, scores, labels, rare=rare, ratio=ratio)
    kept = grad != 0
    assert not kept[:100, rare].sum() - 100  # the target alone
    assert kept[:, ~rare].all()
    # 5 standard deviations of 300 draws, and of 300 * 40 draws.
    drawn = kept[100:, rare].double()
    spread = math.sqrt(ratio * (1 - ratio))
    assert (drawn.mean(0) - ratio).abs().max() < 5 * spread / 300**0.5
    assert abs(drawn.mean() - ratio) < 5 * spread / (300 * 40)**0.5
    # Independent draws: neighbours agree as often as chance says.
    chance = ratio**2 + (1 - ratio)**2
    agree = (drawn[:, 1:] == drawn[:, :-1]).double().mean()
    assert abs(agree - chance) < 0.03
    # What was drawn is what the losses hold.
    expected = slow_gol(scores, labels, kept.tolist())
    torch.testing.assert_close(losses, expected[0].to(dtype))
    torch.testing.assert_close(grad, expected[1].to(dtype))
    again = with_grad(gol_loss, scores, labels, rare=rare, ratio=ratio)
    assert not torch.equal(again[1] != 0, kept)


@pytest.mark.parametrize('ratio', [0.0012, 1 - 0.0012])
def test_ratios_finer_than_a_byte(ratio):
    scores = torch.zeros(1000, 1000)
    labels = torch.full((1000, ), 1000)
    rare = torch.ones(1000, dtype=torch.bool)
    _, grad = with_grad(gol_loss, scores, labels, rare=rare, ratio=ratio)
    kept = (grad != 0).double().mean().item()
    spread = (ratio * (1 - ratio) / grad.numel())**0.5
    assert kept == pytest.approx(ratio, abs=5 * spread)


def test_the_batch_sets_the_ratio():
    rare = torch.tensor([True] * 30 + [False] * 2)
    labels = torch.tensor([0, 1, 31, 30] + [32] * 400)  # half of it rare
    _, grad = with_grad(gol_loss, torch.zeros(404, 32), labels, rare=rare)
    kept = (grad[4:, :30] != 0).float().mean().item()
    assert kept == pytest.approx(0.5, abs=0.025)
    assert rare_ratio(count_foreground(labels, rare)) == 0.5


def test_ignored_rois_count_nowhere():
    scores, labels, rare = batch(4)
    labels = torch.tensor([0, 255, 7, 1])
    losses, grad = with_grad(
        gol_loss, scores, labels, rare=rare, ratio=1., ignore_index=255)
    assert losses[1] == 0 and not grad[1].any()
    others = [0, 2, 3]
    same = with_grad(
        gol_loss, scores[others], labels[others], rare=rare, ratio=1.)
    torch.testing.assert_close(losses[others], same[0])
    torch.testing.assert_close(grad[others], same[1])
    assert count_foreground(labels, rare, 255).tolist() == [1, 2]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_gol_in_half_types(dtype):
    scores, labels, rare = batch(dtype=dtype)
    losses, grad = with_grad(gol_loss, scores, labels, rare=rare, ratio=0.)
    expected = slow_gol(scores, labels, all_kept(scores, labels, rare, False))
    assert losses.dtype == torch.float32 and grad.dtype == dtype
    torch.testing.assert_close(
        losses.double(), expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(
        grad.double(), expected[1], rtol=TOLERANCES[dtype], atol=1e-7)


def test_a_loss_scale_saves_small_half_gradients():
    # The slope at -2.9 is 3.6e-7 and vanishes in float16 unless it is scaled.
    scores = torch.tensor([[-2.9]], dtype=torch.float16, requires_grad=True)
    (gol_loss(scores, torch.tensor([1])) * 2.**14).sum().backward()
    expected = bce(scores.item(), 0)[1] * 2**14
    assert scores.grad.item() == pytest.approx(expected, rel=2e-3)


def test_only_one_tensor_is_kept():
    n, c = 64, 300
    scores = torch.randn(n, c, requires_grad=True)
    labels = torch.randint(0, c + 1, (n, ))
    rare = torch.rand(c) < 0.5
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
            lambda x: saved.append(x.nbytes) or x, lambda x: x):
        loss = gol_loss(scores, labels, rare=rare, ratio=0.3).mean()
    assert max(saved) == n * c * 4
    assert sum(saved) < n * c * 4 * 1.05
    loss.backward(retain_graph=True)
    first = scores.grad.clone()
    loss.backward()
    torch.testing.assert_close(scores.grad, 2 * first)
    saved.clear()
    with torch.autograd.graph.saved_tensors_hooks(
            lambda x: saved.append(x.nbytes) or x, lambda x: x):
        gol_loss(scores.detach(), labels, rare=rare, ratio=0.3)
    assert sum(saved) == 0


def test_gol_without_rois():
    scores = torch.zeros(0, 5, requires_grad=True)
    rare = torch.ones(5, dtype=torch.bool)
    losses = gol_loss(scores, torch.zeros(0, dtype=torch.long), rare=rare)
    losses.sum().backward()
    assert losses.shape == (0, ) and scores.grad.shape == (0, 5)


@pytest.mark.parametrize('change, error, match', [
    (dict(labels=torch.zeros(4)), TypeError, r'int64, but got torch.float32'),
    (dict(labels=torch.zeros(3).long()), ValueError,
     r'\(N, C\) and labels \(N,\), but got \(4, 7\) and \(3,\)'),
    (dict(cls_score=torch.zeros(7)), ValueError, r'but got \(7,\)'),
    (dict(cls_score=torch.zeros(4, 7).long()), TypeError,
     'cls_score must be a floating'),
    (dict(rare=torch.zeros(7)), TypeError, 'rare must be a boolean mask'),
    (dict(rare=torch.zeros(6).bool()), ValueError,
     r'each column of cls_score, 7, but got \(6,\)'),
    (dict(activation='softmax'), ValueError, "but got 'softmax'"),
    (dict(clamp=(2, 1)), ValueError, 'clamp must be two numbers'),
    (dict(rare=torch.zeros(7).bool(), ratio=1.5), ValueError,
     r'ratio must be in \[0, 1\], but got 1.5'),
    (dict(labels=torch.full((4, ), 9)), RuntimeError, 'index 9 is out of'),
])
def test_gol_errors(change, error, match):
    arguments = dict(
        cls_score=torch.zeros(4, 7), labels=torch.zeros(4).long())
    arguments.update(change)
    with pytest.raises(error, match=match):
        gol_loss(**arguments)
