import pytest
import torch
import torch.nn.functional as F

from apa_mm.layers import AGLU
from apa_mm.registry import MODELS


def build(kind, depth=18, **kwargs):
    return MODELS.build(
        dict(type=f'apa_mm.{kind}', depth=depth, **kwargs)).double().eval()


@pytest.mark.parametrize('depth, units', [(18, 19), (50, 51)])
def test_the_deep_stem_has_two_units_more(depth, units):
    model = build('APAResNetD', depth)
    assert sum(isinstance(m, AGLU) for m in model.modules()) == units
    assert [m.weight.shape[0] for m in (
        model.conv1[0], model.conv1[3], model.conv1[6])] == [32, 32, 64]


def test_the_shortcut_of_d_pools_before_it_projects():
    shortcut = build('APAResNetD').layer2[0].downsample
    x = torch.randn(1, 64, 5, 5, dtype=torch.float64)  # odd: ceil_mode counts
    conv, norm = shortcut[1], shortcut[2]
    pooled = F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 2) * 4
    count = F.avg_pool2d(F.pad(torch.ones_like(x), (0, 1, 0, 1)), 2, 2) * 4
    wanted = norm(F.conv2d(pooled / count, conv.weight))
    torch.testing.assert_close(shortcut(x), wanted)
    assert conv.stride == (1, 1)


def test_frozen_stages_of_d_freeze_the_whole_stem():
    model = build('APAResNetD', frozen_stages=0)
    model.train()
    frozen = {n.split('.')[0] for n, p in model.named_parameters()
              if not p.requires_grad}
    assert frozen == {'conv1', 'bn1', 'act1'}
    assert not model.conv1.training


def test_the_legacy_pooling_starts_at_the_border():
    x = torch.arange(64.).reshape(1, 1, 8, 8)
    out = build('APAResNetLegacy').maxpool(x)[0, 0]
    # Windows 0..2, 2..4, 4..6 and, cut off, 6..7.
    last = torch.tensor([2, 4, 6, 7])
    assert torch.equal(out, (8.0 * last[:, None] + last[None]))
    assert build('APAResNet').maxpool(x)[0, 0, 0, 0] == 9
