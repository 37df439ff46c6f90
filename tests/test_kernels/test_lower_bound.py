"""Tests of the lower bound that keeps a parameter alive."""
import pytest
import torch

from apa_mm.functional import lower_bound


def test_value_is_the_maximum():
    x = torch.tensor([-1., 0.1, 0.2, 3.])
    assert lower_bound(x, 0.2).tolist() == torch.tensor(
        [0.2, 0.2, 0.2, 3.]).tolist()


def test_gradient_passes_above_and_upwards_below():
    x = torch.tensor([-1., -1., 0.2, 3.], requires_grad=True)
    lower_bound(x, 0.2).backward(torch.tensor([-2., 2., 5., 7.]))
    # Below the bound a positive gradient would push further down: dropped.
    assert x.grad.tolist() == [-2., 0., 5., 7.]


def test_a_parameter_below_the_bound_returns():
    x = torch.nn.Parameter(torch.tensor(-0.5))
    optimizer = torch.optim.SGD([x], lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (lower_bound(x, 1e-4) - 1).square().backward()
        optimizer.step()
    assert x.item() > 0.5


def test_several_values_are_told_apart_in_second_derivatives():
    x = torch.tensor([-1., 3.], requires_grad=True)
    with pytest.raises(RuntimeError, match='value below its lower bound 0.2'):
        torch.autograd.grad(
            lower_bound(x, 0.2).square().sum(), x, create_graph=True)
    y = torch.tensor([1., 3.], requires_grad=True)
    first, = torch.autograd.grad(
        lower_bound(y, 0.2).pow(3).sum(), y, create_graph=True)
    second, = torch.autograd.grad(first.sum(), y)
    assert second.tolist() == [6., 18.]
