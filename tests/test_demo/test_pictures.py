"""The pictures show what was learned and predicted, each in its place."""
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from torch import nn

from demo.pictures import (Objects, Panel, _predicted, _truth,
                           draw_predictions, save_sites)
from apa_mm.layers import AGLU, APA


def make_objects(box=(8, 10, 24, 30), caption='red_3', masked=True,
                 right=True):
    x1, y1, x2, y2 = box
    mask = np.zeros((1, 48, 48), bool)
    mask[0, y1:y2, x1:x2] = masked
    return Objects(np.array([box], float), mask, np.array([3]), [caption],
                   np.array([right]))


def picture(tmp_path, truth, predicted, name='picture.png'):
    image = np.full((48, 48, 3), 90, np.uint8)
    draw_predictions([Panel(image, truth, predicted)], str(tmp_path / name))
    drawn = cv2.imread(str(tmp_path / name))
    assert drawn is not None and not list(tmp_path.glob('.*'))
    # Below the titles, which differ.
    left, right = np.split(drawn[60:, :drawn.shape[1] // 2 * 2], 2, axis=1)
    return left, right


def differing(first, second):
    """Rows and columns where two pictures differ."""
    return np.nonzero(np.abs(first.astype(int) - second).max(axis=2) > 8)


def test_pairs_are_counted_per_channel(tmp_path):
    checkpoint = str(tmp_path / 'iter_2.pth')
    model = nn.Sequential(AGLU(num_parameters=5), APA(), nn.ReLU())
    picture = tmp_path / 'sites.png'
    assert save_sites(model, checkpoint, str(picture)) == 6
    assert picture.is_file()
    assert save_sites(nn.ReLU(), checkpoint, str(tmp_path / 'no.png')) == 0
    assert not (tmp_path / 'no.png').exists()


def test_the_start_of_training_is_drawn(tmp_path):
    model = nn.ModuleDict(dict(act=AGLU(kappa_init=1.5, lambd_init=0.5)))
    checkpoint, drawn = str(tmp_path / 'iter_2.pth'), []
    for start in (None, 1.0, 2.0):
        if start is not None:
            scalars = tmp_path / '2026' / 'vis_data' / 'scalars.json'
            scalars.parent.mkdir(parents=True, exist_ok=True)
            scalars.write_text(json.dumps({
                'apa/act/kappa': start, 'apa/act/lambd': 0.5, 'step': 0}))
        save_sites(model, checkpoint, str(tmp_path / 'sites.png'))
        drawn.append(cv2.imread(str(tmp_path / 'sites.png')))
    assert len(differing(drawn[1], drawn[2])[0]) > 20
    assert drawn[0].shape != drawn[1].shape or len(
        differing(drawn[0], drawn[1])[0]) > 20


def test_equal_truth_and_prediction_look_equal(tmp_path):
    left, right = picture(tmp_path, make_objects(), make_objects())
    assert len(differing(left, right)[0]) == 0
    # Something is drawn: background grey, box, mask and caption.
    assert len(np.unique(left.reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize('changes', [
    dict(box=(20, 14, 40, 40)),
    dict(caption='blue_9 0.87'),
    dict(masked=False),
    dict(right=False),
])
def test_halves_differ_by_what_was_predicted(tmp_path, changes):
    left, right = picture(tmp_path, make_objects(), make_objects(**changes))
    assert len(differing(left, right)[0]) > 100


def test_mask_fills_its_place_only(tmp_path):
    _, with_mask = picture(tmp_path, make_objects(), make_objects())
    _, without = picture(tmp_path, make_objects(), make_objects(masked=False))
    # The image's grey of 90 stays outside and gets lighter inside.
    assert (with_mask == 90).all(axis=2).mean() > 0.5
    assert (without == 90).all(axis=2).mean() > 0.6
    rows, columns = differing(with_mask, without)
    scale = 3.8 * 110 / 48  # drawn pixels per image pixel, about
    assert np.ptp(rows) == pytest.approx(20 * scale, rel=0.15)
    assert np.ptp(columns) == pytest.approx(16 * scale, rel=0.15)


def test_no_objects_at_all(tmp_path):
    nothing = Objects(np.zeros((0, 4)), np.zeros((0, 48, 48), bool),
                      np.zeros(0, int), [], np.zeros(0, bool))
    left, right = picture(tmp_path, make_objects(), nothing)
    assert len(differing(left, right)[0]) > 100


def test_truth_from_polygons():
    square = [[2.0, 4.0, 10.0, 4.0, 10.0, 8.0, 2.0, 8.0]]
    info = dict(instances=[
        dict(bbox=[2, 4, 10, 8], bbox_label=1, mask=square)
    ])
    truth = _truth(info, ('red_0', 'green_0'), (12, 16))
    expected = np.zeros((12, 16), bool)
    expected[4:8, 2:10] = True
    assert np.array_equal(truth.masks[0], expected)
    assert truth.boxes.tolist() == [[2, 4, 10, 8]]
    assert truth.captions == ['green_0']


def predict(*rows):
    """Objects drawn of (x1, label, score), against one green_0 at x1 = 0."""
    x1, labels, scores = (
        torch.tensor(column) for column in zip(*rows, strict=True))
    boxes = torch.stack([x1, 0 * x1, x1 + 8, 0 * x1 + 8], dim=1).float()
    instances = InstanceData(
        bboxes=boxes,
        masks=torch.ones(len(x1), 8, 24, dtype=torch.bool),
        labels=labels,
        scores=scores)
    truth = replace(
        make_objects(box=(0, 0, 8, 8)), labels=np.array([1]))
    return _predicted(instances, ('red_0', 'green_0'), truth)


def test_unlikely_predictions_are_not_drawn():
    predicted = predict((0, 1, 0.91), (9, 0, 0.2), (16, 1, 0.5))
    assert predicted.captions == ['green_0 0.91', 'green_0 0.50']
    assert predicted.masks.shape == (2, 8, 24)
    assert predicted.boxes.tolist() == [[0, 0, 8, 8], [16, 0, 24, 8]]


def test_covered_predictions_are_not_drawn():
    # 6 of 10 pixels shared with the better first one, then 4 of 12.
    predicted = predict((2, 0, 0.4), (0, 1, 0.9), (4, 1, 0.5))
    assert predicted.captions == ['green_0 0.90', 'green_0 0.50']


def test_right_needs_class_and_place():
    assert predict((1, 1, 0.9), (16, 1, 0.8)).right.tolist() == [True, False]
    assert predict((1, 0, 0.9)).right.tolist() == [False]
    nothing = predict((0, 1, 0.1))
    assert nothing.right.tolist() == [] and nothing.captions == []
