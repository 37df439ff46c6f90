"""ONNX graphs hold standard operators only, as mmdeploy has to export them.

It switches off the pass that unrolls autograd Functions.
"""
import io

import pytest
import torch
from mmdet.models import FCNMaskHead
from mmengine.registry import MODELS, DefaultScope
from support.tiny_detectors import build, tiny_cfg
from torch import nn

from apa_mm.backbones import APAResNet
from apa_mm.det import ClasswiseFCNMaskHead, LargeVocabBBoxHead
from apa_mm.losses import GOLLoss
from apa_mm.surgery import replace_activations

onnx = pytest.importorskip('onnx')
ort = pytest.importorskip('onnxruntime')


@pytest.fixture(autouse=True)
def as_mmdeploy(monkeypatch):
    monkeypatch.setattr(torch._C, '_jit_pass_onnx_autograd_function_process',
                        lambda graph: None)


def flat(outputs):
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


def check(model, *inputs, tolerance=1e-5):
    """Export, look at the operators, and compare with eager."""
    file = io.BytesIO()
    with torch.no_grad():
        wanted = flat(model(*inputs))
        torch.onnx.export(
            model, inputs, file, dynamo=False, opset_version=17,
            input_names=[f'x{i}' for i in range(len(inputs))],
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False)
    graph = onnx.load_model_from_string(file.getvalue())
    assert {node.domain for node in graph.graph.node} <= {'', 'ai.onnx'}
    session = ort.InferenceSession(
        file.getvalue(), providers=['CPUExecutionProvider'])
    got = session.run(None, {f'x{i}': x.numpy() for i, x in enumerate(inputs)})
    for a, b in zip(got[:len(wanted)], wanted, strict=True):
        scale = b.abs().max() + 1e-30
        torch.testing.assert_close(
            torch.from_numpy(a) / scale, b / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize('fuse', [False, True])
def test_resnet50(fuse):
    check(APAResNet(50, fuse=fuse).eval(), torch.rand(1, 3, 32, 32))


def test_joined_norms_and_units_in_training():
    model = APAResNet(18, num_stages=1, out_indices=(0, ), fuse=True,
                      attention_cfg=None)
    check(model.train(), torch.rand(2, 3, 32, 32), tolerance=1e-4)


def test_a_vit_with_units():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(
            type='mmpretrain.VisionTransformer', img_size=32, patch_size=16,
            arch=dict(embed_dims=16, num_layers=2, num_heads=2,
                      feedforward_channels=32)))
    assert replace_activations(model).num_units == 2
    model.eval()  # returns None
    check(model, torch.rand(1, 3, 32, 32))


class Scores(nn.Module):

    def forward(self, x):
        return GOLLoss(num_classes=4).get_activation(x)


def test_scores_of_gol():
    check(Scores(), torch.randn(3, 4) * 3)


class BeforeRoIs(nn.Module):

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, x):
        scores, boxes = self.detector.rpn_head(self.detector.extract_feat(x))
        return (*scores, *boxes)


def test_a_detector_up_to_its_proposals():
    cfg = tiny_cfg('mask-rcnn')
    cfg.backbone.update(type='apa_mm.APAResNet', se_ratio=4)
    check(BeforeRoIs(build(cfg)), torch.rand(1, 3, 64, 64))


def box_head(cls_predictor):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return LargeVocabBBoxHead(
            in_channels=4, fc_out_channels=8, roi_feat_size=2, num_classes=4,
            cls_predictor_cfg=cls_predictor)


@pytest.mark.parametrize('predictor', [
    dict(type='Linear'), dict(type='apa_mm.CosineLinear'),
    dict(type='apa_mm.WrappedCauchyLinear')], ids=lambda p: p['type'])
def test_box_heads(predictor):
    check(box_head(predictor).eval(), torch.rand(3, 4, 2, 2))


def test_mask_head():
    with DefaultScope.overwrite_default_scope('mmdet'):
        head = ClasswiseFCNMaskHead(
            num_convs=1, in_channels=4, conv_out_channels=4, num_classes=3)
    head.init_weights()
    check(head.eval(), torch.rand(2, 4, 4, 4))


class Masks(nn.Module):
    """What mmdeploy makes of a mask head's outputs."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x, labels):
        places = torch.arange(x.shape[0])
        return self.head(x).sigmoid()[places, labels][:, None]


def test_masks_as_mmdeploy_asks_for_them():
    with DefaultScope.overwrite_default_scope('mmdet'):
        head = ClasswiseFCNMaskHead(
            num_convs=1, in_channels=4, conv_out_channels=4, num_classes=3)
    head.init_weights()
    torch.nn.init.normal_(head.conv_logits.weight)
    x, labels = torch.rand(2, 4, 4, 4), torch.tensor([2, 0])
    check(Masks(head.eval()), x, labels)
    with torch.no_grad():
        want = FCNMaskHead.forward(head, x).sigmoid()[[0, 1], labels, None]
        torch.testing.assert_close(Masks(head)(x, labels), want)


def test_calibrated_scores_are_not_left_out_silently():
    head = box_head(dict(type='Linear'))
    head.score_calibration = nn.Identity()
    with pytest.raises(ValueError, match='would be missing in the exported'):
        torch.jit.trace(
            lambda x: head.predict_by_feat(x, x, x, [{}]), torch.rand(2, 5))
