import pytest
import torch
import torch.nn.functional as F
from torch import nn

from apa_mm.surgery.equivalents import equivalent_of, kind_of


@pytest.mark.parametrize('module, function, bound', [
    (nn.ReLU(), F.relu, 3e-5),
    (nn.SiLU(), F.silu, 1e-12),
    (nn.GELU(), F.gelu, 0.0204),
    (nn.GELU('tanh'), lambda x: F.gelu(x, approximate='tanh'), 0.0207),
])
def test_the_stated_deviation_is_the_true_one(module, function, bound):
    kappa, lambd, deviation = equivalent_of(kind_of(module))
    x = torch.cat([
        torch.linspace(-12, 12, 50001, dtype=torch.float64),
        torch.linspace(-1e-3, 1e-3, 50001, dtype=torch.float64)
    ])
    # Written with sigmoid, since the power overflows for kappa = 1e4.
    assert lambd == 1
    measured = (x * torch.sigmoid(kappa * x) - function(x)).abs().max()
    assert deviation == pytest.approx(measured.item(), rel=1e-3, abs=1e-14)
    assert deviation < bound


def test_silu_is_exact_and_gelu_takes_its_sigmoid_form():
    assert equivalent_of('silu')[:2] == (1.0, 1.0)
    assert equivalent_of('gelu')[:2] == (1.702, 1.0)
    assert equivalent_of('relu', relu_kappa=50.)[:2] == (50.0, 1.0)


def test_other_activations_are_not_taken_for_these():

    class Odd(nn.ReLU):

        def forward(self, x):
            return x

    for module in (Odd(), nn.LeakyReLU(), nn.Hardswish(), nn.ReLU6()):
        assert kind_of(module) is None
