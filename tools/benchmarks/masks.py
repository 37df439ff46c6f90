"""Mask head: peak memory and time, ours beside mmdet's FCNMaskHead.

Each figure comes from a fresh process, which is this file run as a script:
its peak is its own.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import List, Optional

import numpy as np
import torch
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from apa_mm.det.mask_head import ClasswiseFCNMaskHead

TITLE = ('Mask head from its upsampling on, 256 channels: 64 RoIs forward and '
         'backward, 300 detections predicted')
HEADS = dict(ours=ClasswiseFCNMaskHead, theirs=FCNMaskHead)
CLASSES = (80, 1203, 13204)
ROIS = dict(train=64, test=300)
#: Copies of the logits that mmdet holds at once: with the gradient of the
#: picked channel and of the logits, or with the sigmoid.
COPIES = dict(train=3, test=2)
IMAGE = (240, 320)
MIB = 2**20


def train_step(head: torch.nn.Module, feats: torch.Tensor,
               labels: torch.Tensor) -> None:
    """Compute the loss of one image and its gradients."""
    rois = len(feats)
    priors = torch.tensor([[20., 20., 120., 100.]]).repeat(rois, 1)
    sampling = SimpleNamespace(
        pos_priors=priors,
        pos_assigned_gt_inds=torch.zeros(rois, dtype=torch.long),
        pos_gt_labels=labels)
    masks = BitmapMasks(np.ones((1, *IMAGE), dtype=np.uint8), *IMAGE)
    out = head.loss_and_target(
        head(feats), [sampling], [InstanceData(masks=masks)],
        ConfigDict(mask_size=28))
    out['loss_mask']['loss_mask'].backward()


@torch.no_grad()
def test_step(head: torch.nn.Module, feats: torch.Tensor,
              labels: torch.Tensor) -> None:
    """Predict the masks of one small image."""
    boxes = torch.tensor([[20., 20., 120., 100.]]).repeat(len(feats), 1)
    results = InstanceData(bboxes=boxes, labels=labels)
    head.predict_by_feat(
        head(feats).split([len(feats)]), [results],
        [dict(ori_shape=IMAGE, scale_factor=(1, 1))],
        ConfigDict(mask_thr_binary=0.5), rescale=True)


def work(who: str, mode: str, num_classes: int, repeats: int) -> dict:
    """Measure one head in this process.

    Returns:
        dict: 'mib', peak resident memory over that before the first step, and
        'seconds', the median of a step.
    """
    torch.manual_seed(0)
    # The convolutions before are the same for both and take the most time.
    head = HEADS[who](num_convs=0, num_classes=num_classes)
    head.init_weights()
    head.train(mode == 'train')
    feats = torch.rand(ROIS[mode], 256, 14, 14)
    labels = torch.randint(num_classes, (ROIS[mode], ))
    step = dict(train=train_step, test=test_step)[mode]
    step(head, feats[:1], labels[:1])  # loads what is loaded on first use
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    before = pages * resource.getpagesize()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        step(head, feats, labels)
        times.append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return dict(mib=(peak - before) / MIB, seconds=median(times))


def spawn(who: str, mode: str, num_classes: int, repeats: int) -> dict:
    """Measure one head in a fresh process."""
    command = [sys.executable, __file__, who, mode, str(num_classes),
               str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)} failed:\n{done.stderr}')
    return json.loads(done.stdout.splitlines()[-1])


def too_large(mode: str, num_classes: int) -> Optional[str]:
    """Return why mmdet's head is not run, or None if it fits."""
    need = ROIS[mode] * num_classes * 28 * 28 * 4 * COPIES[mode]
    free = os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    if need < free / 2:
        return None
    return (f'mmdet skipped: its logits would take about {need / 2**30:.0f} '
            'GiB')


def run(repeats: int = 5, quick: bool = False) -> List[dict]:
    """Measure peak memory and time of a step in training and at test.

    Args:
        repeats (int): Steps whose median counts.
        quick (bool): Leave out mmdet's head at 1,203 classes and more.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio' (theirs over
        ours), 'unit' and 'note'.
    """
    rows = []
    for mode in ('train', 'test'):
        first: dict = {}
        for num_classes in CLASSES:
            ours = spawn('ours', mode, num_classes, repeats)
            note = too_large(mode, num_classes)
            if quick and num_classes > CLASSES[0]:
                note = 'mmdet skipped (--quick)'
            theirs = note is None and spawn('theirs', mode, num_classes,
                                            repeats)
            first = first or dict(ours=ours, theirs=theirs)
            for key, unit, factor in (('mib', 'MiB peak RSS', 1),
                                      ('seconds', 'ms', 1e3)):
                growth = f'ours {ours[key] / first["ours"][key]:.2f}x'
                if theirs and first['theirs']:
                    growth += (', mmdet '
                               f'{theirs[key] / first["theirs"][key]:.2f}x')
                rows.append(dict(
                    case=f'{mode}, {num_classes:,} classes',
                    ours=ours[key] * factor,
                    theirs=theirs[key] * factor if theirs else None,
                    ratio=theirs[key] / ours[key] if theirs else None,
                    unit=unit,
                    note='; '.join(
                        filter(None, [f'over 80 classes: {growth}', note]))))
    return rows


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Measure one mask head.')
    parser.add_argument('who', choices=sorted(HEADS))
    parser.add_argument('mode', choices=sorted(ROIS))
    parser.add_argument('num_classes', type=int)
    parser.add_argument('repeats', type=int)
    print(json.dumps(work(**vars(parser.parse_args()))))
