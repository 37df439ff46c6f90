"""pytorch-grad-cam finds the layers of a ResNet, and their maps."""
import pytest
import torch
from torch import nn

from apa_mm.backbones import APAResNet

cam = pytest.importorskip('pytorch_grad_cam')


class Classifier(nn.Module):

    def __init__(self):
        super().__init__()
        self.backbone = APAResNet(50, out_indices=(3, ))
        self.fc = nn.Linear(2048, 5)

    def forward(self, x):
        return self.fc(self.backbone(x)[0].mean((2, 3)))


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    return Classifier().eval()


@pytest.mark.parametrize('layer', ['norm1', 'norm2', 'norm3', 'relu'])
@pytest.mark.parametrize('method', [
    'GradCAM', 'GradCAMPlusPlus', 'HiResCAM', 'XGradCAM', 'LayerCAM'])
def test_methods_draw_the_last_blocks_layers(model, method, layer):
    torch.manual_seed(1)
    image = torch.rand(1, 3, 64, 64)
    target = getattr(model.backbone.layer4[-1], layer)
    with getattr(cam, method)(model=model, target_layers=[target]) as draw:
        heat, = draw(image, targets=None)  # of the best class
        seen, = draw.activations_and_grads.activations
    assert heat.shape == (64, 64) and heat.min() == 0 and heat.max() > 0.9
    channels = 2048 if layer in ('norm3', 'relu') else 512
    assert seen.shape == (1, channels, 2, 2)
