import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from apa_mm.engine import CPUAmpOptimWrapper


class Net(nn.Module):

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(4, 4)
        self.head = nn.Linear(4, 4)
        self.seen = []

    def forward(self, x):
        x = self.backbone(x)
        self.seen.append(x.dtype)
        x = self.head(x)
        self.seen.append(x.dtype)
        return x


def build(model, **kwargs):
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    return OPTIM_WRAPPERS.build(
        dict(
            type='apa_mm.engine.CPUAmpOptimWrapper', optimizer=sgd, **kwargs))


def test_the_whole_model_runs_in_bfloat16():
    net = Net()
    wrapper = build(net)
    assert isinstance(wrapper, CPUAmpOptimWrapper)
    with wrapper.optim_context(net):
        loss = net(torch.rand(2, 4)).float().sum()
    assert net.seen == [torch.bfloat16, torch.bfloat16]
    before = net.head.weight.clone()
    wrapper.update_params(loss)
    assert net.head.weight.dtype == torch.float32
    assert not torch.equal(net.head.weight, before)


def test_named_parts_run_in_bfloat16_and_hand_on_float32():
    net = Net()
    inside = []
    net.backbone.register_forward_hook(
        lambda module, args, output: inside.append(output.dtype))
    with build(net, modules=['backbone', 'neck']).optim_context(net):
        net(torch.rand(2, 4))
    assert inside == [torch.bfloat16]
    assert net.seen == [torch.float32, torch.float32]
    # The same values as autocast by hand.
    x = torch.rand(2, 4)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        expected = net.backbone(x).float()
    with build(net, modules=['backbone']).optim_context(net):
        assert torch.equal(net.backbone(x), expected)


def test_nothing_is_left_behind():
    net = Net()
    with build(net, modules=['backbone']).optim_context(net):
        with pytest.raises(RuntimeError):
            net(torch.rand(2, 3))
        assert not torch.is_autocast_enabled('cpu')
    net(torch.rand(2, 4))
    assert net.seen == [torch.float32, torch.float32]
    assert not net.backbone._forward_hooks
    assert not net.backbone._forward_pre_hooks


def test_parts_that_do_not_exist():
    net = Net()
    wrapper = build(net, modules=['encoder'])
    with pytest.raises(ValueError, match=r"Net has none .*\['encoder'\]"):
        with wrapper.optim_context(net):
            pass
