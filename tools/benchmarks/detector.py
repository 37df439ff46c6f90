"""Whole detectors at their true size: one training step, one test image.

Ours stands beside mmdet's stock recipe with softmax and with Seesaw. Each
side runs in a process of its own, which is this file run as a script, so that
its peak is its own. Weights are random; the score threshold of the test image
is set so that as many boxes of all classes pass on every side.
"""
import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Callable, Dict, List, Tuple

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine import Config, DefaultScope
from torch import Tensor, nn

TITLE = 'Detectors, forward and backward of 2 images, and one test image'
ROOT = Path(__file__).resolve().parents[2]
SIZE, QUICK_SIZE = (800, 1333), (320, 480)
#: Boxes that pass the score threshold: GOL's on LVIS, as in nms.py.
CANDIDATES = 46_950
MOST_REPEATS = 2  # a step takes ten seconds on two cores
SEESAW = dict(type='SeesawLoss', p=0.8, q=2.0, num_classes=13204)
V3DET = 'mmdet::v3det/faster_rcnn_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x.py'
RECIPES = dict(
    lvis=dict(
        ours=f'{ROOT}/configs/det/lvis/mask-rcnn_apa-seresnet50_fpn_gol-deconv'
        '_sample1e-3-ms-2x_lvis-v1.py',
        softmax='mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py',
        seesaw='mmdet::seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_sample1e-3-'
        'ms-2x_lvis-v1.py'),
    v3det=dict(
        ours=f'{ROOT}/configs/det/v3det/faster-rcnn_apa-seresnet50_fpn_wc_'
        'sample1e-3-ms-2x_v3det.py',
        softmax=V3DET,
        seesaw=V3DET))
UNITS = dict(train='s', test='s', codes='ms', train_peak='MB', test_peak='MB')
LABELS = dict(
    train='training step', test='test image', codes='mask codes',
    train_peak='training step, peak', test_peak='test image, peak')


def detector(vocabulary: str, who: str) -> nn.Module:
    """Build a recipe's detector with random weights."""
    register_all_modules(init_default_scope=False)
    path = RECIPES[vocabulary][who]
    cfg = Config.fromstring(f'_base_ = {path!r}', '.py').model
    cfg.backbone.init_cfg = None
    if (vocabulary, who) == ('v3det', 'seesaw'):
        cfg.roi_head.bbox_head.loss_cls = dict(SEESAW)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg)
    for module in model.modules():
        if hasattr(module, 'set_class_frequency'):  # by Zipf's law
            ranks = np.arange(1, model.roi_head.bbox_head.num_classes + 1)
            module.set_class_frequency(100_000 // ranks, 100_000)
    return model


def images(model: nn.Module, number: int, size: Tuple[int, int]) -> dict:
    """Return images with boxes, and masks if the detector has them."""
    return demo_mm_inputs(
        number, [(3, *size)] * number, num_items=[12] * number,
        num_classes=model.roi_head.bbox_head.num_classes,
        with_mask=model.roi_head.with_mask)


def train_step(model: nn.Module, data: dict) -> None:
    """Run forward and backward."""
    model.zero_grad(set_to_none=True)
    ready = model.train().data_preprocessor(copy.deepcopy(data), True)
    model.parse_losses(model(**ready, mode='loss'))[0].backward()


def scores_of(model: nn.Module, data: dict) -> Tensor:
    """Return the scores of all boxes and classes of a test image."""
    head, found = model.roi_head.bbox_head, []
    handle = head.register_forward_hook(
        lambda module, args, out: found.append(out[0]))
    model.roi_head.test_cfg.score_thr = 2.  # no box passes
    model.test_step(copy.deepcopy(data))
    handle.remove()
    if head.custom_cls_channels:
        scores = head.loss_cls.get_activation(found[0])
    else:
        scores = found[0].softmax(-1)
    return scores[:, :head.num_classes]


def seconds(function: Callable, repeats: int) -> float:
    """Return the median time after a first call."""
    times = []
    for turn in range(repeats + 1):
        begin = time.perf_counter()
        function()
        if turn:
            times.append(time.perf_counter() - begin)
    return median(times)


def peak() -> float:
    """Return the peak memory since the last call in MB, and forget it."""
    lines = Path('/proc/self/status').read_text().splitlines()
    found = next(line for line in lines if line.startswith('VmHWM'))
    Path('/proc/self/clear_refs').write_text('5')
    return int(found.split()[1]) * 1024 / 1e6


def measure(vocabulary: str, who: str, repeats: int,
            size: Tuple[int, int]) -> Dict[str, float]:
    """Return seconds and peaks of one side, by ``UNITS``' names."""
    model = detector(vocabulary, who)
    data = images(model, 1, size)
    peak()
    with torch.no_grad():
        scores = scores_of(model.eval(), data).flatten()
        number = min(CANDIDATES, len(scores))
        model.roi_head.test_cfg.score_thr = scores.topk(number)[0][-1].item()
        del scores
        found = dict(test=seconds(
            lambda: model.test_step(copy.deepcopy(data)), repeats))
        found['test_peak'] = peak()
        result, = model.test_step(copy.deepcopy(data))
    if model.roi_head.with_mask:
        masks = result.pred_instances.masks
        found['codes'] = seconds(lambda: codes(who, masks), repeats)
        del masks
    del result
    data = images(model, 2, size)
    peak()
    found['train'] = seconds(lambda: train_step(model, data), repeats)
    return dict(found, train_peak=peak())


def codes(who: str, masks: Tensor) -> list:
    """Encode masks as each side's metric does where it reads all of them."""
    if who == 'ours':
        from apa_mm.det.mask_rle import encode_masks
        return encode_masks(masks)
    from mmdet.structures.mask import encode_mask_results
    return encode_mask_results(masks.cpu().numpy())


def spawn(*args: object) -> Dict[str, float]:
    """Measure one side in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, *map(str, args)], capture_output=True,
        text=True, env={**os.environ, 'PYTHONPATH': os.pathsep.join(
            [str(ROOT), os.environ.get('PYTHONPATH', '')])})
    if done.returncode:
        raise RuntimeError(f'{args} failed:\n{done.stderr}')
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(vocabulary: str, sides: Dict[str, dict]) -> List[dict]:
    """Return ours beside each other side."""
    rows = []
    for who in ('softmax', 'seesaw'):
        for key in (k for k in UNITS if k in sides['ours']):
            scale = 1e3 if UNITS[key] == 'ms' else 1
            ours, theirs = sides['ours'][key], sides[who][key]
            rows.append(dict(
                case=f'{vocabulary}, {LABELS[key]}, vs {who}',
                ours=ours * scale, theirs=theirs * scale, ratio=theirs / ours,
                unit=UNITS[key], note=''))
    return rows


def run(repeats: int = 5, quick: bool = False) -> List[dict]:
    """Measure all sides.

    Args:
        repeats (int): Runs after a first whose median counts, at most 2.
        quick (bool): LVIS alone, on small images.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio' (theirs over
        ours), 'unit' and 'note'.
    """
    rows = []
    for vocabulary in ('lvis', ) if quick else RECIPES:
        rows += rows_of(vocabulary, {
            who: spawn(vocabulary, who, min(repeats, MOST_REPEATS),
                       *(QUICK_SIZE if quick else SIZE))
            for who in RECIPES[vocabulary]
        })
    return rows


if __name__ == '__main__':
    _vocabulary, _who, *_numbers = sys.argv[1:]
    _repeats, *_size = map(int, _numbers)
    print(json.dumps(measure(_vocabulary, _who, _repeats, tuple(_size))))
