"""AGLU in every FFN of ViT and Swin from the config alone (Table 10)."""
import pytest
import torch
from mmcv.cnn.bricks.transformer import FFN
from mmpretrain.registry import MODELS
from torch import nn

from apa_mm.layers import AGLU

ACT = dict(type='apa_mm.AGLU')
VIT = dict(
    type='VisionTransformer',
    arch='deit-tiny',
    img_size=32,
    patch_size=16,
    layer_cfgs=dict(act_cfg=ACT))
SWIN = dict(
    type='SwinTransformer',
    arch='tiny',
    img_size=32,
    pad_small_map=True,
    stage_cfgs=dict(block_cfgs=dict(ffn_cfgs=dict(act_cfg=ACT))))


def count(model, kind):
    return sum(isinstance(m, kind) for m in model.modules())


@pytest.mark.parametrize('cfg', [VIT, SWIN], ids=['vit', 'swin'])
def test_every_ffn_has_its_own_unit(cfg):
    model = MODELS.build(dict(cfg))
    assert count(model, FFN) == count(model, AGLU) == 12
    assert count(model, nn.GELU) == 0
    for ffn in (m for m in model.modules() if isinstance(m, FFN)):
        assert count(ffn, AGLU) == 1
    units = [m.kappa for m in model.modules() if isinstance(m, AGLU)]
    assert len({id(kappa) for kappa in units}) == 12
    model.init_weights()
    assert all(1 <= kappa.item() <= 1.3 for kappa in units)
    out = model(torch.rand(2, 3, 32, 32))[-1]
    (out * torch.randn_like(out)).sum().backward()
    for kappa in units:
        assert kappa.grad.abs() > 1e-6


def test_vit_b_and_its_size():
    model = MODELS.build(dict(VIT, arch='base', img_size=224))
    # timm's vit_base_patch16_224 has 86,567,656 with its 1000-way head; the
    # twelve units add two numbers each.
    numbers = sum(p.numel() for p in model.parameters()) + 769_000
    assert numbers == 86_567_656 + 24
    assert count(model, AGLU) == 12


def test_the_setting_that_has_no_effect():
    # What the authors' Swin config did: the choice inside init_cfg.
    cfg = dict(SWIN, stage_cfgs=dict(), init_cfg=dict(type='TruncNormal',
                                                      layer='Linear'))
    model = MODELS.build(cfg)
    assert (count(model, AGLU), count(model, nn.GELU)) == (0, 12)


def test_per_channel_units_on_tokens():
    cfg = dict(
        VIT,
        layer_cfgs=dict(
            act_cfg=dict(ACT, num_parameters=768, channel_dim=-1)))
    model = MODELS.build(cfg)
    out = model(torch.rand(1, 3, 32, 32))[-1]
    (out * torch.randn_like(out)).sum().backward()
    for unit in (m for m in model.modules() if isinstance(m, AGLU)):
        assert unit.kappa.grad.shape == (768, )
        assert (unit.kappa.grad != 0).all()
