"""Random evaluation problems and what the original packages say of them."""
import contextlib
import io
import json
from collections import OrderedDict

import numpy as np
import pycocotools.mask as mask_utils
import pytest
import torch

#: Room for objects of all three sizes (borders 32 ** 2 and 96 ** 2).
HEIGHT, WIDTH = 120, 140
#: An object of category 3 and a box that hits it.
CUP = (3, [10, 10, 20, 20])
HIT = [10., 10., 30., 30.]
# Both sides add the same float64 numbers in the same order.
TOLERANCE = 1e-9
COCO_NAMES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR@100',
              'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')


class Case:
    """A small data set with predictions.

    It has ids without order, images without objects or predictions,
    categories without objects, equal scores, boxes without area, polygons
    and both kinds of run-length codes, crowds, the two lists of LVIS, and
    one image with more detections than any limit.
    """

    def __init__(self, seed, num_images=12, num_classes=6, crowded=True):
        rng = np.random.default_rng(seed)
        self.rng = rng
        ids = rng.permutation(40 * num_classes)[:num_classes] + 1
        self.categories = [
            dict(id=int(i), name=f'class {i}', frequency='rcf'[k % 3])
            for k, i in enumerate(ids)
        ]
        image_ids = rng.permutation(900)[:num_images] + 1
        self.images = [self._image(int(i)) for i in image_ids]
        self.annotations = []
        for image in self.images[:-2]:
            self._add_objects(image['id'])
        rng.shuffle(self.annotations)
        ids = rng.permutation(len(self.annotations)) + 1
        for entry, i in zip(self.annotations, ids.tolist(), strict=True):
            entry['id'] = i
        self.predictions = OrderedDict()
        for k, image in enumerate(self.images):
            count = 320 if crowded and k == 0 else int(rng.integers(0, 16))
            self.predictions[image['id']] = self._predict(
                image['id'], 0 if k == 1 else count)

    def _image(self, image_id):
        rng = self.rng
        labels = [c['id'] for c in self.categories]
        negative = [i for i in labels if rng.random() < .4]
        partial = [i for i in labels if rng.random() < .25]
        return dict(
            id=image_id,
            height=HEIGHT,
            width=WIDTH,
            file_name=f'{image_id}.jpg',
            neg_category_ids=negative,
            not_exhaustive_category_ids=partial)

    def _add_objects(self, image_id):
        rng = self.rng
        # The last category never has an object.
        for _ in range(rng.integers(1, 7)):
            category = self.categories[rng.integers(len(self.categories) - 1)]
            x, y = rng.integers(0, 30), rng.integers(0, 20)
            w, h = rng.integers(9, WIDTH - 30), rng.integers(9, HEIGHT - 20)
            box = [float(v) for v in (x, y, w, h)]
            crowd = int(rng.random() < .1)
            area = float(w * h) * float(rng.choice([.7, 1]))
            if rng.random() < .05:
                area = 0.0
            self.annotations.append(
                dict(
                    image_id=image_id,
                    category_id=category['id'],
                    bbox=box,
                    area=area,
                    iscrowd=crowd,
                    segmentation=self._shape(box)))

    def _shape(self, box):
        x, y, w, h = box
        polygon = [x, y, x + w, y, x + w, y + h, x + w / 3, y + h]
        kind = self.rng.integers(3)
        if kind == 0:
            return [polygon]
        code = mask_utils.frPyObjects([polygon], HEIGHT, WIDTH)[0]
        if kind == 1:
            return dict(size=code['size'], counts=code['counts'].decode())
        return dict(size=[HEIGHT, WIDTH], counts=_runs(code))

    def _predict(self, image_id, count):
        """Return noisy copies of the objects and boxes from nowhere."""
        rng = self.rng
        own = [a for a in self.annotations if a['image_id'] == image_id]
        labels = {c['id']: k for k, c in enumerate(self.categories)}
        boxes, classes = [], []
        for k in range(count):
            if own and rng.random() < .6:
                entry = own[rng.integers(len(own))]
                x, y, w, h = np.array(entry['bbox']) + rng.normal(0, 2, 4)
                label = labels[entry['category_id']]
            else:
                x, y = rng.uniform(0, 30), rng.uniform(0, 20)
                w, h = rng.uniform(1, 110), rng.uniform(1, 100)
                label = int(rng.integers(len(labels)))
            if count > 300 and k < 200:
                label = 0  # more of one class than the limit of 100
            if rng.random() < .04:
                w = 0.0
            x, y, w, h = max(x, 0), max(y, 0), max(w, 0), max(h, 0)
            boxes.append([x, y, x + w, y + h])
            classes.append(label)
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        scores = torch.tensor(rng.uniform(0, 1, count), dtype=torch.float32)
        if rng.random() < .7:
            scores = (scores * 6).round() / 6
        return dict(
            bboxes=boxes,
            scores=scores,
            labels=torch.tensor(classes, dtype=torch.int64),
            masks=_box_masks(boxes))

    def truth(self):
        return dict(
            images=self.images,
            categories=self.categories,
            annotations=self.annotations)

    def write(self, folder):
        path = folder / 'truth.json'
        path.write_text(json.dumps(self.truth()))
        return str(path)

    @property
    def meta(self):
        return dict(classes=tuple(c['name'] for c in self.categories))

    def samples(self, encoded=False):
        """Return data samples as mmdet's models return them."""
        samples = []
        for image_id, pred in self.predictions.items():
            pred = dict(pred)
            if encoded:
                pred['masks'] = [encode(mask) for mask in pred['masks']]
            samples.append(
                dict(
                    img_id=image_id,
                    ori_shape=(HEIGHT, WIDTH),
                    pred_instances=pred))
        return samples

    def results(self, iou_type, boxed):
        """Return COCO results; ``boxed`` keeps the box of a mask."""
        results = []
        for image_id, pred in self.predictions.items():
            for k in range(len(pred['scores'])):
                x1, y1, x2, y2 = pred['bboxes'][k].tolist()
                entry = dict(
                    image_id=image_id,
                    category_id=self.categories[pred['labels'][k]]['id'],
                    score=float(pred['scores'][k]))
                if iou_type == 'bbox' or boxed:
                    entry['bbox'] = [x1, y1, x2 - x1, y2 - y1]
                if iou_type == 'segm':
                    entry['segmentation'] = encode(pred['masks'][k])
                results.append(entry)
        return results


def encode(mask):
    """Encode one mask with pycocotools."""
    return mask_utils.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8))


def _runs(code):
    flat = mask_utils.decode(code).flatten(order='F')
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    return np.diff([0, *edges, flat.size]).tolist()


def _box_masks(boxes):
    masks = torch.zeros((len(boxes), HEIGHT, WIDTH), dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(
            masks, boxes.tolist(), strict=True):
        mask[int(y1):int(y2), int(x1 + (x2 - x1) / 5):int(x2)] = True
    return masks


def lvis_numbers(case, iou_type, boxed=True, results=None, ratio=None,
                 max_dets=300, name=None):
    """Return what lvis-api computes; numpy must have ``float``.

    ``ratio`` is the width of the boundary in image diagonals, for boundary
    AP; ``max_dets`` the limit per image, -1 for none; ``name`` the prefix.
    """
    from lvis import LVIS, LVISEval, LVISResults

    class InMemory(LVIS):

        def __init__(self, data):
            self._data = data
            super().__init__('')

        def _load_json(self, path):
            return json.loads(json.dumps(self._data))

    truth = InMemory(case.truth())
    results = case.results(iou_type, boxed) if results is None else results
    results = LVISResults(truth, results, max_dets=max_dets)
    evaluator = LVISEval(truth, results, iou_type)
    if ratio is not None:
        evaluator.compute_iou = lambda image_id, category_id: boundary_ious(
            *evaluator._get_gt_dt(image_id, category_id), ratio)
    evaluator.run()
    name = name or iou_type
    numbers = {f'{name}_{k}': v for k, v in evaluator.results.items()}
    precision = evaluator.eval['precision'][:, :, :, 0]
    _add_classes(numbers, case, evaluator.params.cat_ids, precision)
    return numbers


def best_of_classes(results, limit):
    """Return the best results of each class, of equal ones the first image's.

    Slow and plain: one list per class, sorted whole.
    """
    results = sorted(results, key=lambda result: result['image_id'])
    classes = {}
    for result in results:
        classes.setdefault(result['category_id'], []).append(result)
    return [result for found in classes.values() for result in sorted(
        found, key=lambda result: -result['score'])[:limit]]


def boundary_ious(objects, found, ratio):
    """Return the smaller of mask IoU and boundary IoU, pixel by pixel."""
    found = sorted(found, key=lambda result: -result['score'])
    pairs = [[
        mask_utils.decode(entry['segmentation']).astype(bool)
        for entry in entries
    ] for entries in (found, objects)]
    near = [[edge_pixels(mask, ratio) for mask in masks] for masks in pairs]
    ious = np.zeros((len(found), len(objects)))
    for d in range(len(found)):
        for g in range(len(objects)):
            ious[d, g] = min(
                np.sum(a[d] & b[g]) / max(np.sum(a[d] | b[g]), 1)
                for a, b in (pairs, near))
    return ious if ious.size else []


def edge_pixels(mask, ratio):
    """Return the mask's pixels that are near a pixel outside of it."""
    height, width = mask.shape
    reach = max(1, int(round(ratio * (height**2 + width**2)**.5)))
    padded = np.pad(mask, reach)
    inside = np.ones_like(mask)
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            inside &= padded[dy:dy + height, dx:dx + width]
    return mask & ~inside


def coco_numbers(case, iou_type, boxed=False, max_dets=(100, 300, 1000)):
    """Return what pycocotools computes at three limits."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(case.truth()))
        truth.createIndex()
        found = truth.loadRes(case.results(iou_type, boxed))
        evaluator = COCOeval(truth, found, iou_type)
        evaluator.params.maxDets = list(max_dets)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    numbers = {
        f'{iou_type}_{name}': value
        for name, value in zip(COCO_NAMES, evaluator.stats, strict=True)
    }
    precision = evaluator.eval['precision'][:, :, :, 0, -1]
    _add_classes(numbers, case, evaluator.params.catIds, precision)
    return numbers


def _add_classes(numbers, case, cat_ids, precision):
    """Add classwise AP; the columns belong to sorted category ids."""
    names = {c['id']: c['name'] for c in case.categories}
    for k, cat_id in enumerate(cat_ids):
        values = precision[:, :, k]
        values = values[values > -1]
        numbers[f'{names[cat_id]}_precision'] = values.mean() if len(
            values) else float('nan')


def run(metric, case, samples=None, batch=3):
    """Feed a metric batch by batch and return its numbers without prefix."""
    metric.dataset_meta = case.meta
    samples = case.samples() if samples is None else samples
    for start in range(0, len(samples), batch):
        metric.process(None, samples[start:start + batch])
    numbers = metric.evaluate(len(case.images))
    return {key.split('/', 1)[1]: value for key, value in numbers.items()}


def assert_same(got, want):
    """Compare every number of ``got`` with its namesake."""
    for key in got:
        assert got[key] == pytest.approx(
            want[key], abs=TOLERANCE, rel=0, nan_ok=True), key


def one_image(folder, objects=(), found=(), image=(), **changes):
    """Write a file with one image and categories 3 (label 0) and 1 (label 1).

    Objects are (category id, xywh) with further keys; found are
    (label, score, xyxy).
    """
    entry = dict(
        id=changes.get('image_id', 1),
        height=100,
        width=100,
        neg_category_ids=[1, 3],
        not_exhaustive_category_ids=[])
    entry.update(image)
    truth = dict(
        images=[entry],
        categories=[
            dict(id=3, name='cup', frequency='f'),
            dict(id=1, name='pan', frequency='r')
        ],
        annotations=[])
    for k, (category, box, *more) in enumerate(objects):
        annotation = dict(
            id=k + 1,
            image_id=entry['id'],
            category_id=category,
            bbox=box,
            area=box[2] * box[3])
        annotation.update(*more)
        truth['annotations'].append(annotation)
    path = folder / 'one.json'
    path.write_text(json.dumps(truth))
    sample = dict(
        img_id=entry['id'],
        ori_shape=(100, 100),
        pred_instances=dict(
            bboxes=torch.tensor([f[2] for f in found]).reshape(-1, 4).float(),
            scores=torch.tensor([f[1] for f in found]),
            labels=torch.tensor([f[0] for f in found], dtype=torch.int64)))
    return str(path), sample


def evaluate_one(metric_class, folder, objects, found, **kwargs):
    """Evaluate one image; see :func:`one_image`."""
    image = kwargs.pop('image', {})
    image_id = kwargs.pop('image_id', 1)
    path, sample = one_image(folder, objects, found, image, image_id=image_id)
    metric = metric_class(path, **kwargs)
    metric.dataset_meta = dict(classes=('cup', 'pan'))
    metric.process(None, [sample])
    return metric.evaluate(1)
