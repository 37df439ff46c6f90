"""Tests of apa() and aglu() against closed forms, torch and float64."""
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from support.reference import TOLERANCES, aglu_lambda_gradient, eta, eta_tensor

from apa_mm.functional import aglu, apa

EXTREMES = [-1e4, -300., -20., -1., -1e-3, 0., 1e-3, 1., 20., 300., 1e4]


def leaf(value, dtype=torch.float64):
    return torch.tensor(value, dtype=dtype, requires_grad=True)


@pytest.fixture
def x():
    return torch.linspace(-12, 12, 193, dtype=torch.float64)


# --- closed forms ---
def test_lambda_one_is_the_sigmoid(x):
    torch.testing.assert_close(apa(x, kappa=1., lambd=1.), torch.sigmoid(x))
    torch.testing.assert_close(
        apa(x, kappa=-.7, lambd=1.), torch.sigmoid(-.7 * x))


def test_lambda_and_kappa_one_is_silu(x):
    torch.testing.assert_close(aglu(x, kappa=1., lambd=1.), F.silu(x))


def test_kappa_1702_is_the_sigmoid_form_of_gelu(x):
    torch.testing.assert_close(
        aglu(x, kappa=1.702, lambd=1.), x * torch.sigmoid(1.702 * x))
    # The sigmoid form itself stays within 0.021 of the exact GELU.
    assert (aglu(x, kappa=1.702, lambd=1.) - F.gelu(x)).abs().max() < 0.021


def test_small_lambda_is_the_gumbel_probability(x):
    gumbel = torch.exp(-torch.exp(-x))
    torch.testing.assert_close(
        apa(x, kappa=1., lambd=1e-8), gumbel, rtol=0, atol=1e-8)


def test_large_kappa_is_relu(x):
    error = (aglu(x, kappa=1e4, lambd=1.) - F.relu(x)).abs().max()
    assert error < 1e-4


def test_large_lambda_is_the_identity(x):
    # eta = (lambda + 1)^(-1/lambda) at 0, which is 0.99999 at 1e6.
    torch.testing.assert_close(
        aglu(x, kappa=1., lambd=1e6), x, rtol=3e-5, atol=0)


def test_kappa_zero_is_constant(x):
    want = torch.full_like(x, 1.5**-2)  # (1 + 0.5)^(-1 / 0.5)
    torch.testing.assert_close(apa(x, kappa=0., lambd=.5), want)


@pytest.mark.parametrize('z, kappa, lambd, want', [
    (-2, 1, 1, 0.11920292),
    (-2, 1, 0.5, 0.04537495),
    (-2, 1, 1e-4, 6.1966749e-4),
    (1, 1, 0.1, 0.69678792),
    (1, -0.5, 0.5, 0.30045443),
    (3, 1.15, 0.3, 0.9688985),
    (0, 7.0, 0.5, 0.44444444),
])
def test_known_values(z, kappa, lambd, want):
    value = apa(torch.tensor(float(z)).double(), kappa=kappa, lambd=lambd)
    assert value.item() == pytest.approx(want, rel=2e-7)


# --- gradients ---
@pytest.mark.parametrize('z, kappa, lambd, exact, paper', [
    (-2, 1, 0.1, -0.101531, 0.336189),
    (-2, 1, 0.5, -0.275666, 0.285676),
    (-1, 1, 1e-4, -0.243796, 1793.92),
    (-1, 1, 0.5, -0.202805, 0.414060),
    (-1, 1.2, 0.3, -0.213231, 0.553737),
    (0.5, 1, 0.5, 0.0378880, -0.274002),
    (1, 1, 1.0, 0.0324007, -0.196612),
    (2, -0.5, 0.5, 0.405611, -0.828119),
    (4, 1, 1.0, 6.43093e-4, -0.0706508),
])
def test_lambda_gradient_exact_and_as_printed(z, kappa, lambd, exact, paper):
    for mode, want in (('exact', exact), ('paper', paper)):
        for dtype, rel in ((torch.float64, 3e-6), (torch.float32, 2e-5)):
            parameter = leaf(float(lambd), dtype)
            x = torch.tensor(float(z), dtype=dtype)
            aglu(x, kappa=kappa, lambd=parameter, lambda_grad=mode).backward()
            assert parameter.grad.item() == pytest.approx(want, rel=rel)


def test_paper_mode_changes_the_lambda_gradient_only():
    grads = {}
    for mode in ('exact', 'paper'):
        inputs = [leaf([.1, .5, 2.]), leaf(1.2), leaf(.3)]
        out = aglu(
            inputs[0],
            kappa=inputs[1],
            lambd=inputs[2],
            lambda_grad=mode)
        out.sum().backward()
        grads[mode] = [t.grad for t in inputs]
    assert torch.equal(grads['exact'][0], grads['paper'][0])
    assert torch.equal(grads['exact'][1], grads['paper'][1])
    assert grads['exact'][2] * grads['paper'][2] < 0


@pytest.mark.parametrize('function', [apa, aglu])
@pytest.mark.parametrize('per_channel', [False, True])
@pytest.mark.parametrize('contiguous', [False, True])
@pytest.mark.parametrize('lambd', [1e-4, 0.03, 1.0, 40.0])
def test_gradcheck(function, per_channel, contiguous, lambd):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64) * 2
    if not contiguous:
        x = x.transpose(1, 3).contiguous().transpose(1, 3)
    shape = (3, 1, 1) if per_channel else (1, )
    kappa = torch.rand(shape, dtype=torch.float64) - 0.3
    lam = torch.rand(shape, dtype=torch.float64) * lambd + lambd
    inputs = [t.requires_grad_() for t in (x, kappa, lam)]
    # A central difference needs a step well below lambda itself.
    torch.autograd.gradcheck(
        lambda x, k, v: function(x, kappa=k, lambd=v),
        inputs,
        eps=min(1e-6, lambd * 1e-3),
        atol=1e-5,
        rtol=1e-3)


@pytest.mark.parametrize('lambd', [1e-4, 1e-3, 1e-2, 0.5, 3.0])
@pytest.mark.parametrize('kappa', [0.6, 1.0, 1.3])
def test_float32_lambda_gradient_within_1e4_of_float64(lambd, kappa):
    for z in torch.linspace(-6, 8, 57).tolist():
        parameter = leaf(lambd, torch.float32)
        value = aglu(torch.tensor(z), kappa=kappa, lambd=parameter)
        value.backward()
        # The oracle gets lambda and kappa as float32 rounds them.
        want = aglu_lambda_gradient(z,
                                    torch.tensor(kappa).item(),
                                    parameter.item())
        assert parameter.grad.item() == pytest.approx(
            want, rel=1e-4, abs=1e-30)


@pytest.mark.parametrize('function', [apa, aglu])
def test_gradgradcheck(function):
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    inputs = [x, leaf([1.1]), leaf([0.4])]
    torch.autograd.gradgradcheck(
        lambda x, k, v: function(x, kappa=k, lambd=v), inputs)


# --- extremes ---
@pytest.mark.parametrize('dtype', list(TOLERANCES))
@pytest.mark.parametrize('lambd', [1e-8, 1e-4, 0.5, 1.0, 1e4])
@pytest.mark.parametrize('kappa', [-30., -1., 0., 1e-3, 1.3, 1e4])
@pytest.mark.parametrize('function', [apa, aglu])
def test_extremes_stay_finite(dtype, lambd, kappa, function):
    x = leaf(EXTREMES, dtype)
    # Parameters of half modules; 1e-8 does not exist in float16.
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    k, lam = leaf(kappa, wide), leaf(lambd, wide)
    out = function(x, kappa=k, lambd=lam)
    out.float().sum().backward()
    assert out.dtype == dtype
    for tensor in (out, k.grad, lam.grad):
        assert torch.isfinite(tensor).all()
    # At kappa 1e4 the slope at 0 times x may pass float16's 65504.
    if dtype != torch.float16 or abs(kappa) < 1e4:
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize('dtype', list(TOLERANCES))
def test_dtypes_agree_with_the_float64_oracle(dtype):
    torch.manual_seed(0)
    x = (torch.randn(3, 7, 5) * 3).to(dtype)
    got = apa(x, kappa=1.25, lambd=0.25)
    assert got.dtype == dtype
    tol = TOLERANCES[dtype]
    torch.testing.assert_close(
        got.double(), eta_tensor(x, 1.25, 0.25), rtol=tol, atol=tol)


def test_autocast_keeps_the_dtype_and_the_accuracy():
    x = torch.linspace(-4, 4, 65)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        wide = aglu(x, kappa=1.25, lambd=0.25)
        narrow = aglu(x.bfloat16(), kappa=1.25, lambd=0.25)
    assert wide.dtype == torch.float32 and narrow.dtype == torch.bfloat16
    want = x.double() * eta_tensor(x, 1.25, 0.25)
    torch.testing.assert_close(wide.double(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('shape', [(), (0, ), (2, 0, 3), (1, 1, 1, 1023)])
def test_shapes(shape):
    x = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    kappa, lambd = leaf([1.5]), leaf([0.7])
    out = aglu(x, kappa=kappa, lambd=lambd)
    out.sum().backward()
    assert out.shape == shape and x.grad.shape == shape
    count = x.numel()
    assert out.sum().item() == pytest.approx(count * eta(1., 1.5, 0.7))
    assert kappa.grad.shape == (1, )
    assert (kappa.grad.item() == 0) == (count == 0)


def test_memory_formats_are_kept():
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    x.requires_grad_()
    out = aglu(x, kappa=1., lambd=torch.rand(3, 1, 1) + 0.1)
    assert out.is_contiguous(memory_format=torch.channels_last)
    out.sum().backward()
    assert x.grad.is_contiguous(memory_format=torch.channels_last)
    transposed = torch.randn(4, 5).t()
    assert apa(transposed, kappa=1., lambd=1.).stride() == transposed.stride()


def test_only_the_inputs_are_saved():
    saved = []
    x = torch.randn(64, 32, requires_grad=True)
    kappa, lambd = leaf([1.]), leaf([1.])
    with torch.autograd.graph.saved_tensors_hooks(
            lambda t: saved.append(t) or t, lambda t: t):
        out = aglu(x, kappa=kappa, lambd=lambd)
    assert sum(t.numel() for t in saved) == 64 * 32 + 2
    assert any(t.data_ptr() == x.data_ptr() for t in saved)
    assert out.shape == x.shape


# --- properties ---
numbers = st.floats(-30, 30, width=32)
kappas = st.floats(0.01, 5)
lambdas = st.floats(1e-4, 10)


@given(numbers, kappas, lambdas)
def test_eta_is_a_probability_and_matches_the_oracle(z, kappa, lambd):
    value = apa(
        torch.tensor(z, dtype=torch.float64), kappa=kappa, lambd=lambd)
    assert 0 <= value.item() <= 1
    assert value.item() == pytest.approx(eta(z, kappa, lambd), abs=1e-12)


@given(numbers, st.floats(0, 5), kappas, lambdas)
def test_eta_rises_with_x(z, step, kappa, lambd):
    x = torch.tensor([z, z + step], dtype=torch.float64)
    low, high = apa(x, kappa=kappa, lambd=lambd).tolist()
    assert high >= low - 1e-12


@given(numbers, kappas, lambdas, st.floats(0, 5))
def test_eta_never_falls_as_lambda_rises(z, kappa, lambd, step):
    x = torch.tensor(z, dtype=torch.float64)
    low = apa(x, kappa=kappa, lambd=lambd).item()
    assert apa(x, kappa=kappa, lambd=lambd + step).item() >= low - 1e-12


# --- errors ---
def test_integer_input_is_refused():
    with pytest.raises(TypeError, match='floating point tensor, but got dtype '
                       'torch.int64'):
        apa(torch.arange(3), kappa=1., lambd=1.)


@pytest.mark.parametrize('lambd', [0., -1., float('nan')])
def test_lambda_must_be_positive(lambd):
    with pytest.raises(ValueError, match='lambd must be positive, but got'):
        apa(torch.ones(2), kappa=1., lambd=lambd)


def test_unknown_lambda_grad_is_refused():
    with pytest.raises(ValueError, match="'exact', 'paper'.*'fast'"):
        aglu(torch.ones(2), kappa=1., lambd=1., lambda_grad='fast')


def test_parameters_must_broadcast():
    with pytest.raises(ValueError, match=r'kappa of shape \(4,\) does not '
                       r'broadcast to x of shape \(2, 3\)'):
        apa(torch.ones(2, 3), kappa=torch.ones(4), lambd=1.)
