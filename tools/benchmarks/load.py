"""Start of training on LVIS: checks, annotations, repeat factors, counts.

The set is made up, with as many images, objects and bytes as LVIS v1's
training file. Each figure comes from a fresh process, which is this file run
as a script, with an empty cache or that of the process before. Memory is what
is added after the imports.
"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import List

import numpy as np
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import ClassBalancedDataset

from apa_mm.data.class_frequency import class_frequency
from apa_mm.preflight.data_checks import inspect_data

TITLE = "LVIS v1's training set: annotations, repeat factors, class counts"
IMAGES, OBJECTS, CLASSES = 100_170, 1_271_618, 1203
VERTICES = 52  # a polygon, on average; makes 1.06 GB
KINDS = dict(ours='apa_mm.LVISV1Dataset', theirs='LVISV1Dataset')
NAMES = tuple(f'class {n}' for n in range(CLASSES))
UNITS = dict(wall='s', cpu='CPU s', peak='MB peak', private='MB private')
MB = 1e6


def write_set(path: Path, images: int, objects: int) -> None:
    """Write a set of random boxes and polygons, classes by Zipf's law."""
    rng = np.random.default_rng(0)
    shapes = [
        ','.join(f'{x:.2f}' for x in rng.uniform(10, 400, 2 * n))
        for n in 3 + rng.exponential(VERTICES - 3, 5000).astype(int)
    ]
    weights = 1 / np.arange(1, CLASSES + 1)
    drawn = zip(
        rng.integers(images, size=objects) + 1,
        rng.choice(CLASSES, objects, p=weights / weights.sum()) + 1,
        *rng.uniform(2, 300, (4, objects)),
        rng.integers(len(shapes), size=objects),
        strict=True)
    lists = dict(
        images=[
            dict(id=n, height=480, width=640, neg_category_ids=[1, 2, 3],
                 not_exhaustive_category_ids=[], license=1,
                 coco_url=f'http://images.cocodataset.org/train2017/{n:012}'
                 '.jpg') for n in range(1, images + 1)
        ],
        categories=[
            dict(id=n + 1, name=name, frequency='f')
            for n, name in enumerate(NAMES)
        ])
    folder = path.with_name('train2017')
    folder.mkdir()
    for n in range(1, images + 1):
        (folder / f'{n:012}.jpg').touch()  # the checks look for them
    with open(path, 'w') as file:
        file.write(json.dumps(lists)[:-1] + ',"annotations":[')
        for n, (image, kind, x, y, w, h, shape) in enumerate(drawn, 1):
            file.write(f'{"," if n > 1 else ""}{{"id":{n},"image_id":{image},'
                       f'"category_id":{kind},"area":{w * h:.2f},'
                       f'"bbox":[{x:.2f},{y:.2f},{w:.2f},{h:.2f}],'
                       f'"segmentation":[[{shapes[shape]}]]}}')
        file.write(']}')


def memory() -> dict:
    """Return this process's peak and private memory in bytes."""
    found = {}
    for name in ('status', 'smaps_rollup'):
        for line in Path('/proc/self', name).read_text().splitlines():
            if line.endswith(' kB'):
                key, number, _ = line.split()
                found[key] = int(number) * 1024
    return dict(peak=found['VmHWM:'],  # ru_maxrss begins with the parent's
                private=found['Private_Clean:'] + found['Private_Dirty:'])


def work(who: str, path: str) -> dict:
    """Start as a rank does; return seconds and bytes by ``UNITS``' names."""
    register_all_modules()
    config = dict(
        type=KINDS[who], ann_file=path, metainfo=dict(classes=NAMES),
        data_prefix=dict(img=os.path.dirname(path)),
        filter_cfg=dict(filter_empty_gt=True, min_size=32))
    before = memory()
    wall, cpu = time.perf_counter(), time.process_time()
    if who == 'ours':  # mmdet checks nothing
        mask = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
        problems = inspect_data(Config(dict(
            default_scope='mmdet', train_dataloader=dict(
                dataset=dict(config, pipeline=[mask]))))).problems
        if problems:
            raise RuntimeError(problems)
    config['pipeline'] = []
    kept = ClassBalancedDataset(DATASETS.build(config), 1e-3)
    counts = class_frequency(kept).counts
    found = dict(wall=time.perf_counter() - wall,
                 cpu=time.process_time() - cpu)
    found.update({k: n - before[k] for k, n in memory().items()})
    # Both sides must say the same.
    return dict(found, check=[len(kept), int(counts.sum())])


def spawn(who: str, path: Path) -> dict:
    """Start in a fresh process whose cache lies beside the file."""
    done = subprocess.run(
        [sys.executable, __file__, who, str(path)], capture_output=True,
        text=True, env={**os.environ, 'XDG_CACHE_HOME': str(path.parent)})
    if done.returncode:
        raise RuntimeError(f'{who} failed:\n{done.stderr}')
    return json.loads(done.stdout.splitlines()[-1])


def run(repeats: int = 5, quick: bool = False) -> List[dict]:
    """Measure a first start and one that finds the cache.

    Args:
        repeats (int): Not used; each start runs once.
        quick (bool): A tenth of the set alone. mmdet's data set only runs on
            that: the whole one takes it over a minute and 8 GB.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio' (theirs over
        ours), 'unit' and 'note'.
    """
    rows = []
    for part in (10, ) if quick else (10, 1):
        with TemporaryDirectory() as folder:
            path = Path(folder, 'set.json')
            write_set(path, IMAGES // part, OBJECTS // part)
            theirs = spawn('theirs', path) if part > 1 else {}
            for start in ('first', 'later'):
                ours = spawn('ours', path)
                if theirs and ours['check'] != theirs['check']:
                    raise RuntimeError(f'ours {ours}, theirs {theirs}')
                for key, unit in UNITS.items():
                    scale = MB if key in ('peak', 'private') else 1
                    other = theirs[key] / scale if theirs else None
                    rows.append(dict(
                        case=f'{path.stat().st_size / MB:,.0f} MB, {start} '
                        'start', ours=ours[key] / scale, theirs=other,
                        ratio=other and other * scale / ours[key], unit=unit,
                        note='' if theirs else 'mmdet not run'))
    return rows


if __name__ == '__main__':
    print(json.dumps(work(*sys.argv[1:])))
