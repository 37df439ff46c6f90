"""FSDP2: a sharded APAResNet has the whole one's gradients."""
import pytest
import torch
import torch.distributed as dist
from support.two_processes import WORLD_SIZE, run_two
from torch import nn

from apa_mm.backbones import APAResNet
from apa_mm.layers import AGLU

fsdp = pytest.importorskip(
    'torch.distributed.fsdp', reason='needs torch 2.6 or newer')
pytestmark = pytest.mark.skipif(
    not hasattr(fsdp, 'fully_shard'), reason='needs torch 2.6 or newer')


def network():
    torch.manual_seed(0)
    model = APAResNet(18, base_channels=8, se_ratio=4, out_indices=(3, ),
                      norm_eval=True)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.
    return model.train()


def loss_of(model, rank):
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(
        rank))
    return model(image)[0].square().mean()


def check_gradients(rank, folder):
    whole, sharded = network(), network()
    mesh = dist.init_device_mesh('cpu', (WORLD_SIZE, ))
    for stage in sharded.res_layers:
        for block in getattr(sharded, stage):
            fsdp.fully_shard(block, mesh=mesh)
    fsdp.fully_shard(sharded, mesh=mesh)
    (sum(loss_of(whole, r) for r in range(WORLD_SIZE)) / WORLD_SIZE).backward()
    loss_of(sharded, rank).backward()
    wanted = dict(whole.named_parameters())
    units = 0
    for name, p in sharded.named_parameters():
        grad, want = p.grad.full_tensor(), wanted.pop(name).grad
        scale = want.abs().max()
        torch.testing.assert_close(grad / scale, want / scale, rtol=0,
                                   atol=1e-4, msg=name)
        units += name.endswith('kappa')
    assert not wanted
    assert units > sum(isinstance(m, AGLU) for m in whole.modules())


def test_gradients_of_a_sharded_network(tmp_path):
    run_two(check_gradients, tmp_path)
