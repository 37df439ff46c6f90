"""A whole detector with our heads, by mmdeploy's exporter."""
import copy

import pytest
import torch
from mmdet.models import FCNMaskHead
from mmengine.config import Config
from support.demo_jobs import CONFIG
from support.optional import NOT_THERE, offer
from support.tiny_detectors import build

HAS_MMDEPLOY = offer('mmdeploy', 'mmdeploy*', 'aenum*', 'dill*', 'grpc*',
                     '*multiprocess*', 'prettytable*', 'wcwidth*')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not HAS_MMDEPLOY, reason=f'mmdeploy is {NOT_THERE}')
]
ort = pytest.importorskip('onnxruntime')
SIZE = 128


@pytest.fixture(scope='module')
def config():
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.init_cfg = None
    cfg.model.roi_head.bbox_head.type = 'apa_mm.LargeVocabBBoxHead'
    cfg.model.roi_head.mask_head.type = 'apa_mm.ClasswiseFCNMaskHead'
    cfg.model.test_cfg.rcnn.update(score_thr=0.5, max_per_img=30)
    return cfg


@pytest.fixture(scope='module')
def model(config):
    """Return the demo's detector with boxes that differ between classes."""
    model = build(copy.deepcopy(config.model))
    torch.nn.init.normal_(model.roi_head.bbox_head.fc_reg.weight, std=0.3)
    return model


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    """Write a picture of noise; return its path."""
    import cv2
    import numpy as np
    path = tmp_path_factory.mktemp('image') / 'noise.png'
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3))
    cv2.imwrite(str(path), pixels.astype('uint8'))
    return str(path)


def inputs(model, image):
    """Return what ``predict`` takes, as the test pipeline makes it."""
    import cv2
    from mmdet.structures import DetDataSample
    pixels = torch.from_numpy(cv2.imread(image)).permute(2, 0, 1)
    shape = pixels.shape[1:]
    sample = DetDataSample(metainfo=dict(
        img_shape=shape, ori_shape=shape, scale_factor=(1., 1.)))
    data = model.data_preprocessor(
        dict(inputs=[pixels], data_samples=[sample]))
    return data['inputs'], data['data_samples']


@pytest.fixture(scope='module')
def graph(config, model, image, tmp_path_factory):
    """Export by the command line, which has another threshold's word."""
    import export_detector
    folder = tmp_path_factory.mktemp('mmdeploy')
    torch.save(dict(meta={}, state_dict=model.state_dict()),
               folder / 'fresh.pth')
    strict = copy.deepcopy(config)
    strict.model.test_cfg.rcnn.score_thr = 1.
    strict.dump(folder / 'strict.py')
    paths = [str(folder / name) for name in ('strict.py', 'fresh.pth')]
    out = str(folder / 'out.onnx')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('sys.argv', [
            'export_detector.py', *paths, image, out, '--score-thr', '0.5'])
        export_detector.main()
    return out


def run(graph, x):
    """Return boxes, scores, labels and masks of the detections."""
    session = ort.InferenceSession(graph, providers=['CPUExecutionProvider'])
    dets, labels, masks = (
        torch.from_numpy(each[0]) for each in session.run(
            None, dict(input=x.numpy())))
    there = dets[:, 4] > 0  # the rest is padding
    return dets[there, :4], dets[there, 4], labels[there], masks[there]


def as_exported(model):
    """Return the detector with the two things that mmdeploy changes.

    Proposals of all levels suppress each other, and all classes of a RoI get
    the box of its best class.
    """
    model = copy.deepcopy(model)
    model.rpn_head.test_cfg.nms.class_agnostic = True
    head = model.roi_head.bbox_head

    def best_box(_, inputs, outputs):
        scores, boxes = outputs
        best = head.loss_cls.get_activation(scores)[:, :-1].argmax(1)
        boxes = boxes.unflatten(1, (-1, 4))
        boxes = boxes[torch.arange(len(boxes)), best]
        return scores, boxes.repeat(1, head.num_classes)

    head.register_forward_hook(best_box)
    return model


def predict(model, x, samples):
    with torch.no_grad():
        return model.predict(x, samples, rescale=False)[0].pred_instances


def test_standard_operators_only(graph):
    nodes = pytest.importorskip('onnx').load(graph).graph.node
    assert {node.domain for node in nodes} <= {'', 'ai.onnx'}
    assert {'RoiAlign', 'NonMaxSuppression'} <= {n.op_type for n in nodes}


def distance(boxes, labels, want):
    """Return the largest distance to the nearest box of the same class."""
    apart = (boxes[:, None] - want.bboxes).abs().amax(2)
    apart = apart.masked_fill(labels[:, None] != want.labels, torch.inf)
    return max(apart.amin(dim).max() for dim in (0, 1))


def test_detections_are_eagers_by_mmdeploys_rules(graph, model, image):
    x, samples = inputs(model, image)
    boxes, scores, labels, _ = run(graph, x)
    want = predict(as_exported(model), x, samples)
    assert len(scores) == len(want) == 30
    torch.testing.assert_close(scores, want.scores, rtol=0, atol=1e-5)
    assert distance(boxes, labels, want) < 0.01
    # Without the rules they differ: those are what the test compares.
    assert distance(boxes, labels, predict(model, x, samples)) > 1


def test_masks_are_mmdets(graph, model, image):
    x, _ = inputs(model, image)
    boxes, _, labels, masks = run(graph, x)
    head = model.roi_head.mask_head
    rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
    with torch.no_grad():
        features = model.roi_head.mask_roi_extractor(
            model.extract_feat(x)[:4], rois)
        logits = FCNMaskHead.forward(head, features)
    want = logits.sigmoid()[torch.arange(len(boxes)), labels]
    torch.testing.assert_close(masks, want, rtol=0, atol=1e-4)
