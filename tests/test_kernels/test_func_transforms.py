"""``torch.func``, second derivatives and tensor subclasses."""
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, grad, jacrev, jvp, vmap

from apa_mm.backbones.resnet_blocks import Bottleneck
from apa_mm.functional import aglu, apa, gumbel
from apa_mm.layers import AGLU

FUNCTIONS = {
    'apa': apa,
    'aglu': aglu,
    'gumbel': lambda x, kappa, lambd: gumbel(x, kappa=kappa)
}


@pytest.mark.parametrize('name', list(FUNCTIONS))
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_gradients_per_sample_equal_a_loop(name, dtype):
    def loss(x, kappa, lambd):
        return FUNCTIONS[name](x, kappa=kappa, lambd=lambd).square().sum()

    x = torch.randn(4, 5, dtype=dtype)
    kappa, lambd = torch.rand(2, 4, dtype=dtype) + 0.3
    got = vmap(grad(loss, (0, 1, 2)))(x, kappa, lambd)
    for i in range(4):
        leaves = [t[i].clone().requires_grad_() for t in (x, kappa, lambd)]
        want = torch.autograd.grad(
            loss(*leaves), leaves, allow_unused=True, materialize_grads=True)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a[i], b)


def test_modules_under_functional_call():
    unit = AGLU(num_parameters=3)
    x = torch.randn(2, 3, 4, 4)
    values = {k: v.detach() for k, v in unit.named_parameters()}
    got = grad(lambda v: functional_call(unit, v, (x, )).sum())(values)
    unit(x).sum().backward()
    for name, parameter in unit.named_parameters():
        torch.testing.assert_close(
            got[name], parameter.grad, rtol=1e-4, atol=1e-5)


def test_hessian_equals_second_derivatives_of_silu():
    x = torch.randn(6, dtype=torch.float64)
    hessian = jacrev(grad(lambda v: aglu(v, kappa=1., lambd=1.).sum()))(x)
    want = jacrev(grad(lambda v: nn.functional.silu(v).sum()))(x)
    torch.testing.assert_close(hessian, want)


def test_forward_mode_equals_silu():
    x, tangent = torch.randn(2, 5, dtype=torch.float64)
    got = jvp(lambda v: aglu(v, kappa=1., lambd=1.), (x, ), (tangent, ))
    want = jvp(nn.functional.silu, (x, ), (tangent, ))
    torch.testing.assert_close(got, want)


def test_a_block_works_under_func_and_refuses_double_backward_when_joined():
    block = Bottleneck(16, 4, attention_cfg=dict(
        type='apa_mm.ChannelAttention', reduction=4, dropout=0.))
    x = torch.randn(2, 16, 6, 6)
    values = {k: v.detach() for k, v in block.named_parameters()}
    block.eval()
    got = grad(lambda v: functional_call(block, v, (x, )).sum())(values)
    block.fuse = False
    block(x).sum().backward()
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(
            got[name], parameter.grad, rtol=1e-3, atol=1e-4)
    for fuse in (True, False):
        block.fuse = fuse
        leaf = x.clone().requires_grad_()
        loss = block(leaf).square().sum()
        if fuse:
            with pytest.raises(RuntimeError, match='set fuse=False'):
                torch.autograd.grad(loss, leaf, create_graph=True)
        else:
            first, = torch.autograd.grad(loss, leaf, create_graph=True)
            first.square().sum().backward()
            assert leaf.grad.isfinite().all()


def test_fake_tensors_pass():
    with FakeTensorMode():
        x = torch.empty(2, 3, 4, 4)
        assert aglu(x, kappa=1., lambd=1.).shape == x.shape
        assert Bottleneck(16, 4)(torch.empty(2, 16, 4, 4)).shape[1] == 16


def test_checkpointing_unpacks_the_saved_tensors_once():
    from torch.utils.checkpoint import checkpoint
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    for function in FUNCTIONS.values():
        def run(v, function=function):
            return function(v, kappa=1., lambd=.5).sum()

        got, = torch.autograd.grad(
            checkpoint(run, x, use_reentrant=False), x)
        want, = torch.autograd.grad(run(x), x)
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize('build', [AGLU, lambda: Bottleneck(16, 4)])
def test_many_gradients_at_once(build):
    """autograd.grad and jacobian run one backward pass for a stack of them."""
    module, x = build(), torch.randn(2, 16, 5, 5, requires_grad=True)
    leaves, out = (x, *module.parameters()), module(x)
    stack = torch.randn(3, *out.shape)
    got = torch.autograd.grad(out, leaves, stack, is_grads_batched=True,
                              retain_graph=True)
    for i, grad_out in enumerate(stack):
        want = torch.autograd.grad(out, leaves, grad_out, retain_graph=True)
        for a, b in zip(got, want, strict=True):
            scale = 1 + b.abs().max()
            torch.testing.assert_close(a[i] / scale, b / scale)
