"""The Triton kernels on a CUDA card, beside torch's own and a plain copy.

    python tools/benchmark.py gpu --json gpu.json

Where there is no card, ``TRITON_INTERPRET=1`` and ``--quick`` run the same
code on the CPU in Triton's interpreter; times mean nothing there.
"""
import os
from functools import partial
from typing import Callable, Dict, List, Optional

import torch
from torch import Tensor, nn

from apa_mm.kernels.activation import choose_backend

from . import act, gol, model

TITLE = 'AGLU, APAResNet and GOL on the GPU (theirs: what the case names)'
#: Ends of R50's stages for 2 images of 800 x 1344.
SHAPES = ((2, 256, 200, 336), (2, 512, 100, 168), (2, 1024, 50, 84),
          (2, 2048, 25, 42))
QUICK_SHAPES = ((2, 256, 3, 2), )
STAGES = (256, 512, 1024, 2048)
CLASSES, QUICK_CLASSES = (1203, 13204), (5, )


def find_device() -> Optional[str]:
    """Return where the kernels run, None if nowhere."""
    if torch.cuda.is_available():
        return 'cuda'
    os.environ.setdefault('APA_MM_BACKEND', 'triton')
    runs = choose_backend(torch.zeros(1)) == 'triton'
    return 'cpu' if runs else None


def block_rows(shape: tuple, repeats: int, device: str) -> List[dict]:
    """Return rows of a bottleneck with its end, forward and backward."""
    networks, blocks = model.networks(50), {}
    stage = STAGES.index(shape[1]) + 1
    for name in ('ours', 'theirs'):
        stage_of = getattr(networks[name], f'layer{stage}')
        blocks[name] = stage_of[1].to(device).train()
    x = torch.randn(shape, device=device, requires_grad=True)

    def step(block: nn.Module) -> None:
        block(x).sum().backward()

    times = act.medians({
        name: partial(step, block) for name, block in blocks.items()
    }, repeats, device)
    return [_row(f'bottleneck {"x".join(map(str, shape))} vs ReLU and SE',
                 {k: v * 1e3 for k, v in times.items()}, 'ms')]


def gol_rows(classes: int, repeats: int, device: str) -> List[dict]:
    """Return rows of GOL beside BCE with logits."""
    steps = gol.make_steps(classes, device)
    scores: Tensor = steps.pop('scores')


    def both(forward: Callable) -> None:
        scores.grad = None
        forward().backward()

    times = act.medians({
        name: partial(both, forward) for name, forward in steps.items()
    }, repeats, device)
    return [
        _row(f'GOL, {classes:,} classes vs {name}', dict(
            ours=times['ours'] * 1e3, theirs=times[name] * 1e3), 'ms')
        for name in ('bce', 'formula')
    ]


def detector_rows(repeats: int) -> List[dict]:
    """Return rows of one LVIS training step: time and peak memory."""
    from . import detector
    found: Dict[str, Dict[str, float]] = dict(s={}, MB={})
    for name, who in (('ours', 'ours'), ('theirs', 'softmax')):
        network = detector.detector('lvis', who).cuda()
        data = detector.images(network, 2, detector.SIZE)
        torch.cuda.reset_peak_memory_stats()
        found['s'][name] = act.medians(
            dict(step=partial(detector.train_step, network, data)), repeats,
            'cuda')['step']
        found['MB'][name] = torch.cuda.max_memory_allocated() / 1e6
    return [_row('LVIS training step vs softmax', values, unit)
            for unit, values in found.items()]


def run(repeats: int = 5, quick: bool = False) -> List[dict]:
    """Measure on the card.

    Args:
        repeats (int): Runs of which the median counts.
        quick (bool): Tiny sizes, without the detector.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio' (ours over
        theirs), 'unit' and 'note'.

    Raises:
        RuntimeError: If there is no CUDA device, nor Triton's interpreter.
    """
    device = find_device()
    if device is None:
        raise RuntimeError('no CUDA device')
    rows = []
    for shape in QUICK_SHAPES if quick else SHAPES:
        rows += act.rows_of(shape, repeats, device)
        rows += block_rows(shape, repeats, device)
    for classes in QUICK_CLASSES if quick else CLASSES:
        rows += gol_rows(classes, repeats, device)
    return rows if quick else rows + detector_rows(repeats)


def _row(case: str, values: Dict[str, float], unit: str) -> dict:
    ours, theirs = values['ours'], values['theirs']
    return dict(case=case, ours=ours, theirs=theirs, ratio=ours / theirs,
                unit=unit, note='')
