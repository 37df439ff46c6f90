"""GOL loss: time and memory kept for the backward pass.

Ours stands beside torch's binary cross entropy with logits, which knows
neither Gumbel nor dropped classes, and beside the loss as its formula is
written. A quarter of the RoIs is foreground and 68 % of the classes are
rare, as in LVIS.
"""
import time
from statistics import median
from typing import Callable, Dict, List

import torch
import torch.nn.functional as F
from torch import Tensor

from apa_mm.functional import gol_loss

TITLE = 'GOL loss, 1,024 RoIs, forward and backward, draws included'
NUM_ROIS = 1024
CLASSES = (80, 1203, 13204)
QUICK_CLASSES = CLASSES[:2]
RARE_SHARE = 815 / 1203
MIB = 2**20


def plain_formula(scores: Tensor, target: Tensor, labels: Tensor,
                  rare: Tensor) -> Tensor:
    """Return the loss (0-d) with one operation per sign of the formula."""
    num_rois, num_classes = scores.shape
    e = torch.exp(-scores.clamp(-10, 10))
    loss = target * e - (1 - target) * torch.log(1 - torch.exp(-e))
    background = labels == num_classes
    is_rare = rare[labels[~background]]
    draws = torch.rand(scores.shape, device=scores.device)
    drop = draws > is_rare.float().mean()
    drop[~background] = True
    weight = 1 - (1 - target) * rare.float() * drop.float()
    return (weight * loss).sum() / num_rois


def make_steps(num_classes: int,
               device: str = 'cpu') -> Dict[str, Callable]:
    """Return a forward pass for each side, and their common scores."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(NUM_ROIS, num_classes, generator=generator) - 2
    labels = torch.full((NUM_ROIS, ), num_classes)
    foreground = NUM_ROIS // 4
    labels[:foreground] = torch.randint(
        num_classes, (foreground, ), generator=generator)
    rare = torch.rand(num_classes, generator=generator) < RARE_SHARE
    target = F.one_hot(labels, num_classes + 1)[:, :num_classes].float()
    scores, labels, rare, target = (
        x.to(device) for x in (scores, labels, rare, target))
    scores.requires_grad_()
    return dict(
        scores=scores,
        ours=lambda: gol_loss(scores, labels, rare=rare).sum() / NUM_ROIS,
        bce=lambda: F.binary_cross_entropy_with_logits(scores, target),
        formula=lambda: plain_formula(scores, target, labels, rare))


def kept(forward: Callable, scores: Tensor) -> Dict[str, float]:
    """Return MiB and number of large tensors kept for the backward pass.

    The scores themselves exist anyway and do not count.
    """
    sizes = {}

    def pack(x: Tensor) -> Tensor:
        if x.data_ptr() != scores.data_ptr():
            sizes[x.data_ptr()] = x.nbytes
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = forward()  # alive while it is measured: addresses are unique
    assert loss.isfinite()
    large = [size for size in sizes.values() if size >= scores.nbytes]
    return dict(mib=sum(sizes.values()) / MIB, tensors=len(large))


def step_seconds(forward: Callable, scores: Tensor) -> float:
    """Return the time of one forward and backward pass."""
    scores.grad = None
    begin = time.perf_counter()
    forward().backward()
    return time.perf_counter() - begin


def run(repeats: int = 5, quick: bool = False) -> List[dict]:
    """Measure times by turns, and memory.

    Args:
        repeats (int): Passes whose median counts.
        quick (bool): Leave out 13,204 classes.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio' (theirs over
        ours), 'unit' and 'note'.
    """
    rows = []
    for num_classes in QUICK_CLASSES if quick else CLASSES:
        steps = make_steps(num_classes)
        scores = steps.pop('scores')
        times: Dict[str, List[float]] = {name: [] for name in steps}
        for name in steps:
            step_seconds(steps[name], scores)  # the first call loads things
        for _ in range(repeats):
            for name in steps:
                times[name].append(step_seconds(steps[name], scores))
        memory = {name: kept(steps[name], scores) for name in steps}
        mine = median(times['ours'])
        for name, label in (('bce', 'BCE with logits'),
                            ('formula', 'formula as written')):
            other = median(times[name])
            rows.append(dict(
                case=f'{num_classes:,} classes, {label}',
                ours=mine * 1e3,
                theirs=other * 1e3,
                ratio=other / mine,
                unit='ms',
                note=f'ours takes {mine / other:.2f}x its time'))
            ours, theirs = memory['ours'], memory[name]
            rows.append(dict(
                case=f'{num_classes:,} classes, {label}',
                ours=ours['mib'],
                theirs=theirs['mib'],
                ratio=theirs['mib'] / ours['mib'],
                unit='MiB kept',
                note=f'{ours["tensors"]} and {theirs["tensors"]} tensors of '
                'RoIs x classes'))
    return rows
