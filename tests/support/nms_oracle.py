"""Slow, plain NMS to compare with, and inputs for it."""
import numpy as np
import torch


def overlap(a, b, offset=0):
    """Return the IoU of two float64 boxes; 0 / 0 counts as no overlap."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    inter = max(width, 0.0) * max(height, 0.0)
    areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    union = areas[0] + areas[1] - inter
    return inter / union if union else 0.0


def oracle(boxes, scores, thr, iou_thr, max_num=-1, factors=None, offset=0):
    """Suppress class by class in float64, box by box, in plain Python.

    Returns flat indices ``roi * C + class``, best score first, ties by index.
    """
    num_classes = scores.size(1) - 1
    final = scores if factors is None else scores * factors[:, None]
    boxes, scores, final = (
        t.double().numpy() for t in (boxes, scores, final))
    kept = []
    for label in range(num_classes):
        rois = [r for r in range(len(scores)) if scores[r, label] > thr]
        rois.sort(key=lambda r: (-final[r, label], r))
        alive = []
        for roi in rois:
            box = boxes[roi][-4:] if boxes.shape[1] == 4 else \
                boxes[roi, 4 * label:4 * label + 4]
            if all(overlap(box, b, offset) <= iou_thr for b in alive):
                alive.append(box)
                kept.append((-final[roi, label], roi * num_classes + label))
    kept = [flat for _, flat in sorted(kept)]
    return kept[:max_num] if max_num > 0 else kept


def make(seed, num_rois, num_classes, *, per_class=False, grid=None,
         levels=None, objects=4):
    """Make clustered boxes and scores; a grid or levels make ties."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(10, 90, (objects, 2))[rng.integers(
        objects, size=num_rois)]
    width = num_classes if per_class else 1
    centre = centre[:, None] + rng.normal(0, 4, (num_rois, width, 2))
    size = rng.uniform(5, 40, (num_rois, width, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], -1)
    boxes = boxes.clip(0, 100).reshape(num_rois, width * 4)
    scores = rng.uniform(size=(num_rois, num_classes + 1))**3
    if grid:
        boxes = np.round(boxes / grid) * grid
    if levels:
        scores = np.round(scores * levels) / levels
    return (torch.tensor(boxes, dtype=torch.float32),
            torch.tensor(scores, dtype=torch.float32))


def check(result, expected, boxes, scores, factors=None):
    """Compare boxes, scores, labels and indices with the expected indices."""
    dets, labels, inds = result
    num_classes = scores.size(1) - 1
    assert inds.tolist() == list(expected)
    rows = torch.tensor(expected, dtype=torch.long) // num_classes
    cols = torch.tensor(expected, dtype=torch.long) % num_classes
    assert labels.tolist() == cols.tolist()
    final = scores if factors is None else scores * factors[:, None]
    assert torch.equal(dets[:, 4], final[rows, cols])
    every = boxes[:, None].expand(-1, num_classes, -1) \
        if boxes.size(1) == 4 else boxes.view(
            len(boxes), num_classes, 4)
    assert torch.equal(dets[:, :4], every[rows, cols])


def assert_same(ours, theirs):
    """Compare two tuples of tensors bit for bit."""
    assert len(ours) == len(theirs)
    assert all(map(torch.equal, ours, theirs))
