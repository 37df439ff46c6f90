"""Evaluation: seconds of the metric itself, ours beside mmdet's.

Detections are synthetic and made outside the clock; the clock runs over
``process()`` of every image and ``evaluate()``. Run as a script this file is
the worker that measures one data set in a process of its own, whose peak
memory it reports; with ``--cpu`` the clock is CPU time, for busy machines.
"""
import argparse
import contextlib
import io
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Callable, Iterator, NamedTuple, Optional

import numpy as np
import torch

TITLE = 'Evaluation: process() of all images + evaluate()'
#: A run of mmdet's metric that would take longer is skipped.
LIMIT_S = 120.0
#: Longer runs are measured once; shorter ones give a median.
SINGLE_S = 15.0


class Scale(NamedTuple):
    """Size of a synthetic data set; counts per image are means."""
    name: str
    images: int
    classes: int
    objects: int = 12
    lvis: bool = True
    challenge: bool = False


LVIS_2K = Scale('LVIS-like, 2,000 images, 1,203 classes', 2000, 1203)
LVIS_CHALLENGE = Scale(
    'LVIS-like, 2,000 images, box and mask, fixed and boundary AP as well',
    2000, 1203, challenge=True)
V3DET = Scale('V3Det val at true size, 29,821 images, 13,204 classes', 29821,
              13204, 6, False)
GROWTH = [
    Scale(f'LVIS rules, 100 images, {classes:,} classes', 100, classes)
    for classes in (80, 1203, 13204)
]
V3DET_SMALL = Scale('V3Det-like, 25 images, 13,204 classes', 25, 13204, 6,
                    False)
DETECTIONS = 300


def write_truth(scale: Scale, path: Path) -> None:
    """Write an annotation file with a long tail of classes."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for image_id in range(1, scale.images + 1):
        boxes, labels = objects(scale, image_id)
        image = dict(id=image_id, height=480, width=640)
        if scale.lvis:
            absent = rng.choice(scale.classes, 10) + 1
            image.update(
                neg_category_ids=sorted({*absent.tolist()} -
                                        {*(labels + 1).tolist()}),
                not_exhaustive_category_ids=(labels[:1] + 1).tolist())
        images.append(image)
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0))
            if scale.challenge:
                x, y, w, h = box
                annotations[-1]['segmentation'] = [[x, y, x + w, y, x + w,
                                                    y + h]]
    categories = [
        dict(id=k + 1, name=f'class {k}', frequency='fcr'[3 * k //
                                                          scale.classes])
        for k in range(scale.classes)
    ]
    path.write_text(
        json.dumps(
            dict(
                images=images, categories=categories,
                annotations=annotations)))


def objects(scale: Scale, image_id: int) -> tuple:
    """Return xywh boxes (N, 4) and labels (N, ) of an image's objects."""
    rng = np.random.default_rng([image_id, 1])
    count = int(rng.integers(1, 2 * scale.objects))
    corner = rng.uniform(0, 300, (count, 2))
    boxes = np.concatenate([corner, rng.uniform(8, 180, (count, 2))], 1)
    labels = (scale.classes * rng.random(count)**3).astype(np.int64)
    return boxes.round(2), labels


def sample(scale: Scale, image_id: int) -> dict:
    """Return a data sample with 300 detections, most of them near objects."""
    rng = np.random.default_rng([image_id, 2])
    boxes, labels = objects(scale, image_id)
    near = rng.integers(len(boxes), size=DETECTIONS)
    boxes = boxes[near] + rng.normal(0, 12, (DETECTIONS, 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1) + boxes[:, :2]
    other = (scale.classes * rng.random(DETECTIONS)**3).astype(np.int64)
    labels = np.where(rng.random(DETECTIONS) < .4, labels[near], other)
    found = dict(
        bboxes=torch.from_numpy(boxes.astype(np.float32)),
        scores=torch.from_numpy(rng.random(DETECTIONS, np.float32)),
        labels=torch.from_numpy(labels))
    if scale.challenge:
        from hotcoco.mask import fr_poly
        found['masks'] = [fr_poly([x1, y1, x2, y1, x2, y2], 480, 640)
                          for x1, y1, x2, y2 in boxes]
    return dict(img_id=image_id, ori_shape=(480, 640), pred_instances=found)


@contextlib.contextmanager
def quiet_old_numpy() -> Iterator[None]:
    """Give lvis 0.5.3 its ``np.float`` and silence what prints."""
    missing = not hasattr(np, 'float')
    if missing:
        np.float = float
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
        if missing:
            del np.float


def build(scale: Scale, path: Path, ours: bool) -> object:
    """Return the metric under test, its ground truth read."""
    from mmdet.evaluation import CocoMetric, LVISMetric

    from apa_mm.det import CocoMetric as OurCoco
    from apa_mm.det import LVISMetric as OurLVIS
    if scale.challenge:
        metric = OurLVIS(str(path), metric=['bbox', 'segm'],
                         max_dets_per_class=10000, dilation_ratio=.02)
    elif scale.lvis:
        metric = (OurLVIS if ours else LVISMetric)(str(path))
    else:
        metric = (OurCoco if ours else CocoMetric)(
            str(path), use_mp_eval=True, proposal_nums=[DETECTIONS])
    metric.dataset_meta = dict(
        classes=tuple(f'class {k}' for k in range(scale.classes)))
    return metric


def measure(scale: Scale,
            path: Path,
            ours: bool,
            clock: Callable[[], float] = time.perf_counter) -> tuple:
    """Return seconds in the metric, seconds reading the file, results."""
    with quiet_old_numpy():
        start = clock()
        metric = build(scale, path, ours)
        reading = clock() - start
        spent = 0.0
        for image_id in range(1, scale.images + 1):
            batch = [sample(scale, image_id)]
            start = clock()
            metric.process(None, batch)
            spent += clock() - start
        start = clock()
        results = metric.evaluate(scale.images)
        spent += clock() - start
    return spent, reading, results


def compare(scale: Scale,
            repeats: int,
            expected_s: Optional[float] = None) -> dict:
    """Return one row with both metrics on one data set, alternating.

    Args:
        scale (Scale): Data set.
        repeats (int): Runs of each; mmdet's long ones are not repeated.
        expected_s (float, optional): Seconds that mmdet may take.
    """
    _progress(scale.name)
    skip = expected_s is not None and expected_s > LIMIT_S
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'truth.json'
        write_truth(scale, path)
        for _ in range(repeats):
            spent, _, results = measure(scale, path, ours=True)
            ours.append(spent)
            if not skip and (not theirs or theirs[0] < SINGLE_S):
                spent, _, reference = measure(scale, path, ours=False)
                theirs.append(spent)
    row = _row(scale, median(ours), f'median of {len(ours)}')
    if skip:
        row['note'] += f'; mmdet skipped, about {expected_s:.0f} s'
        return row
    same = 'same' if results == reference else 'DIFFERENT'
    row.update(theirs=median(theirs), ratio=median(theirs) / median(ours))
    row['note'] += f', mmdet of {len(theirs)}; {same} numbers'
    return row


def measure_apart(scale: Scale, expected: str) -> dict:
    """Return one row of ours in a process of its own, with peak memory.

    Args:
        scale (Scale): Data set.
        expected (str): What is said of mmdet's metric.
    """
    _progress(scale.name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'truth.json'
        write_truth(scale, path)
        done = subprocess.run(
            [sys.executable, __file__,
             str(path), *map(str, scale)],
            check=True,
            stdout=subprocess.PIPE,
            text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return _row(
        scale, found['seconds'],
        f"peak RSS {found['peak_gb']:.2f} GB, of it {found['start_gb']:.2f} "
        f"GB libraries; {found['reading_s']:.1f} s more to read the file; " +
        expected)


def run(repeats: int = 5, quick: bool = False) -> list:
    """Measure all cases.

    Args:
        repeats (int): Runs per case that takes less than 15 s.
        quick (bool): Only the smallest sets.

    Returns:
        list[dict]: Rows with case, ours, theirs, ratio, unit, note.
    """
    rows = [compare(scale, repeats) for scale in GROWTH[:1 if quick else 3]]
    if quick:
        return rows
    expected = rows[1]['theirs'] * LVIS_2K.images / GROWTH[1].images
    rows.append(compare(LVIS_2K, repeats, expected))
    rows.append(compare(V3DET_SMALL, min(repeats, 3)))
    minutes = rows[-1]['theirs'] / V3DET_SMALL.images * V3DET.images / 60
    rows.append(measure_apart(
        V3DET, f'mmdet skipped, about {minutes:.0f} min by its time at '
        f'{V3DET_SMALL.images} images'))
    rows.append(measure_apart(LVIS_CHALLENGE, 'mmdet has neither'))
    return rows


def _row(scale: Scale, ours: float, note: str) -> dict:
    return dict(
        case=scale.name,
        ours=ours,
        theirs=None,
        ratio=None,
        unit='s',
        note=note)


def _progress(text: str) -> None:
    print(f'measuring {text}', file=sys.stderr, flush=True)


def peak_gb() -> float:
    """Return the peak resident memory of this process so far in GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == 'darwin' else 1024) / 1e9


def main() -> None:
    """Measure the data set of the command line and print one JSON line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument('path', type=Path, help='made unless it is there')
    parser.add_argument('name')
    for name in ('images', 'classes', 'objects'):
        parser.add_argument(name, type=int)
    for name in ('lvis', 'challenge'):
        parser.add_argument(name, type=lambda text: text == 'True')
    parser.add_argument('--cpu', action='store_true')
    args = vars(parser.parse_args())
    path, cpu = args.pop('path'), args.pop('cpu')
    scale = Scale(**args)
    if not path.exists():
        write_truth(scale, path)
    import apa_mm.det  # noqa: F401
    start_gb = peak_gb()
    spent, reading, _ = measure(
        scale, path, ours=True,
        clock=time.process_time if cpu else time.perf_counter)
    print(
        json.dumps(
            dict(
                seconds=spent,
                reading_s=reading,
                peak_gb=peak_gb(),
                start_gb=start_gb)))


if __name__ == '__main__':
    main()
