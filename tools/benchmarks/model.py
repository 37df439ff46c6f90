"""APA* networks beside ReLU SE-ResNets: time and activation memory."""
from typing import Dict

import torch
from torch import Tensor, nn

from apa_mm.backbones import APAResNet

from .act import medians

TITLE = 'APAResNet (ours) beside SE-ResNet with ReLU and sigmoid (theirs)'
BATCH, SIDE = 8, 160
SE = dict(
    type='apa_mm.ChannelAttention',
    gate_cfg=dict(type='Sigmoid'),
    norm_cfg=None,
    dropout=0.)


def networks(depth: int) -> Dict[str, nn.Module]:
    """Return ours, ours with separate layers, and the ReLU baseline."""
    relu = dict(type='ReLU', inplace=True)
    return {
        'ours': APAResNet(depth),
        'separate': APAResNet(depth, fuse=False),
        'theirs': APAResNet(depth, act_cfg=relu, attention_cfg=SE),
    }


def activation_bytes(model: nn.Module, x: Tensor) -> int:
    """Return the bytes of distinct storages kept for the backward pass."""
    own = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # The tensor is held, so that no address is used twice.
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = model.train()(x)
    total = sum(size for size, _ in kept.values())
    del out
    return total


def train_step(model: nn.Module, x: Tensor) -> None:
    """Run forward and backward."""
    model.zero_grad(set_to_none=True)
    model.train()(x)[-1].mean().backward()


@torch.no_grad()
def eval_forward(model: nn.Module, x: Tensor) -> None:
    """Run an inference pass."""
    model.eval()(x)


def run(repeats: int = 5, quick: bool = False) -> list:
    """Return rows for training step, inference and memory of each depth.

    Args:
        repeats (int): Runs of which the median counts.
        quick (bool): Depth 18 alone.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio', 'unit',
        'note'.
    """
    rows = []
    x = torch.rand(BATCH, 3, SIDE, SIDE)
    for depth in (18, ) if quick else (18, 50, 101):
        models = networks(depth)
        for case, function in (('training step', train_step),
                               ('inference', eval_forward)):
            seconds = medians({
                name: (lambda m=m, f=function: f(m, x))
                for name, m in models.items()
            }, repeats)
            rows.append(_row(f'R{depth} {case}', seconds, 's'))
        sizes = {n: activation_bytes(m, x) / 2**20 for n, m in models.items()}
        rows.append(_row(f'R{depth} kept for backward', sizes, 'MiB'))
    return rows


def _row(case: str, values: Dict[str, float], unit: str) -> dict:
    separate = values['separate'] / values['theirs']
    return dict(
        case=f'{case}, batch {BATCH}, {SIDE} px',
        ours=values['ours'],
        theirs=values['theirs'],
        ratio=values['ours'] / values['theirs'],
        unit=unit,
        note=f'separate layers: ratio {separate:.2f}')
