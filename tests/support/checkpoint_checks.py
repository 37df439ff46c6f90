"""What the tests of several sources check."""
import torch
from torch import nn

from apa_mm.checkpoint import convert_back
from apa_mm.registry import MODELS

# Of the largest output, in float64: up to 49 units in a row, each at most
# 2.8e-5 off ReLU.
RELU_TOLERANCE = 1e-3


def calibrate(model, size=64):
    """Give a network running statistics at which it neither dies nor grows."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.6, 1.1)
            nn.init.normal_(module.bias, std=0.1)
    model.train()
    with torch.no_grad():
        model(torch.randn(8, 3, size, size))
    model.double().eval()  # mmdet's ResNet returns nothing here
    return model


def backbone_of(result, **changes):
    model = MODELS.build(dict(result.architecture.cfg(), **changes))
    model = model.double().eval()
    weights = {
        k[len('backbone.'):]: v
        for k, v in result.tensors.items() if k.startswith('backbone.')
    } or result.tensors
    model.load_state_dict(weights, strict=True)
    return model


def assert_same(out, wanted, tolerance=RELU_TOLERANCE):
    assert wanted.abs().max() > 0.05
    torch.testing.assert_close(
        out, wanted, rtol=0, atol=tolerance * wanted.abs().max().item())


def assert_round_trip(result, source, table):
    assert result.source.table.name == table
    back, left = convert_back(
        result.tensors, table, added=result.report.added)
    assert not left and back.keys() == source.keys()
    for name, value in source.items():
        assert back[name].shape == value.shape, name
        assert torch.equal(back[name], value), name
