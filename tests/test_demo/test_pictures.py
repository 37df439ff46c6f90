"""The pictures show what was learned and predicted, each in its place."""
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from torch import nn

from apa_mm.demo.pictures import (Objects, Panel, _predicted, _truth,
                                  collect_sites, draw_predictions, draw_sites,
                                  save_sites)
from apa_mm.layers import AGLU, APA


def make_model():
    """Units and gates; the outer values keep the axes when others move."""
    return nn.ModuleDict({
        f'{kind.__name__}{i}': kind(kappa_init=kappa, lambd_init=lambd)
        for kind, shift in ((AGLU, 1.0), (APA, -1.0))
        for i, (kappa, lambd) in enumerate(((shift, 0.1), (shift + 0.5, 0.5),
                                            (shift + 1.0, 0.9)))
    })


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
    assert drawn is not None and not list(tmp_path.glob('*.partial'))
    # Below the titles, which differ.
    left, right = np.split(drawn[60:, :drawn.shape[1] // 2 * 2], 2, axis=1)
    return left, right


def differing(first, second):
    """Rows and columns where two pictures differ."""
    return np.nonzero(np.abs(first.astype(int) - second).max(axis=2) > 8)


def test_sites_are_named_and_sorted_out():
    sites = collect_sites(make_model())
    assert [(site.name, site.is_gate) for site in sites] == [
        ('AGLU0', False), ('AGLU1', False), ('AGLU2', False), ('APA0', True),
        ('APA1', True), ('APA2', True)]
    assert sites[1].kappa.tolist() == pytest.approx([1.5])
    assert sites[5].lambd.tolist() == pytest.approx([0.9])
    assert sites[3].kappa_init == (-1.0, -1.0)


def test_lambda_is_shown_as_used():
    model = AGLU(lambd_init=0.5)
    with torch.no_grad():
        model.lambd.fill_(-3.0)
    assert collect_sites(model)[0].lambd.tolist() == pytest.approx([1e-4])


def test_pairs_are_counted_per_channel(tmp_path):
    model = nn.Sequential(AGLU(num_parameters=5), APA(), nn.ReLU())
    assert save_sites(model, str(tmp_path / 'sites.png')) == 6
    assert (tmp_path / 'sites.png').is_file()
    assert save_sites(nn.ReLU(), str(tmp_path / 'none.png')) == 0
    assert not (tmp_path / 'none.png').exists()


@pytest.mark.parametrize('index, field, half_row, half_column', [
    (1, 'kappa', 0, 0),
    (1, 'lambd', 0, 1),
    (4, 'kappa', 1, 0),
    (4, 'lambd', 1, 1),
])
def test_every_value_stands_in_its_own_plot(tmp_path, index, field, half_row,
                                            half_column):
    sites = collect_sites(make_model())
    draw_sites(sites, str(tmp_path / 'before.png'))
    sites[index] = replace(
        sites[index], **{field: getattr(sites[index], field) + 0.1})
    draw_sites(sites, str(tmp_path / 'after.png'))
    before, after = (
        cv2.imread(str(tmp_path / f'{name}.png'))
        for name in ('before', 'after'))
    rows, columns = differing(before, after)
    assert len(rows) > 0
    height, width = before.shape[:2]
    assert set((rows > height / 2).tolist()) == {bool(half_row)}
    assert set((columns > width / 2).tolist()) == {bool(half_column)}


def test_plot_without_gates_has_one_row(tmp_path):
    sites = collect_sites(make_model())
    draw_sites(sites, str(tmp_path / 'both.png'))
    draw_sites(sites[:3], str(tmp_path / 'units.png'))
    both, units = (
        cv2.imread(str(tmp_path / f'{name}.png'))
        for name in ('both', 'units'))
    assert both.shape[0] == 2 * units.shape[0]
    assert both.shape[1] == units.shape[1]


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
    scale = 3.2 * 130 / 48  # drawn pixels per image pixel, about
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
