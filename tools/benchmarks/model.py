"""APA* networks beside ReLU SE-ResNets: time and activation memory."""
import copy
import functools
from pathlib import Path
from typing import Callable, Dict

import torch
from mmcv.cnn import fuse_conv_bn
from mmdet.registry import MODELS
from torch import Tensor, nn

from apa_mm.backbones import APAResNet

from .act import medians

TITLE = 'APAResNet (ours) beside SE-ResNet with ReLU and sigmoid (theirs)'
DEVICES = ('cpu', 'cuda')
BATCH, SIDE = 8, 224
LARGE = (1, 3, 800, 1344)  # an image as detectors get it
DETECTOR = (Path(__file__).resolve().parents[2] / 'configs' / 'demo' /
            'mask-rcnn_seresnet18_fpn_digits-lvis.py')
DETECTOR_SIDE = 256
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
    """Run forward and backward of a model in training mode."""
    model.zero_grad(set_to_none=True)
    model(x)[-1].mean().backward()


def detectors() -> Dict[str, nn.Module]:
    """Return the demo's baseline detector, with our activations and without.

    All else is the same, so that the difference is that of the activations.
    """
    from mmdet.utils import register_all_modules
    from mmengine import Config, DefaultScope
    register_all_modules(init_default_scope=False)
    built = {}
    for name in ('ours', 'separate', 'theirs'):
        cfg = Config.fromfile(DETECTOR).model
        if name != 'theirs':
            del cfg.backbone.act_cfg, cfg.backbone.attention_cfg
            cfg.backbone.fuse = None if name == 'ours' else False
        with DefaultScope.overwrite_default_scope('mmdet'):
            built[name] = MODELS.build(cfg)
    return built


def detector_batch() -> dict:
    """Return two images with boxes and masks, as a data loader gives them."""
    from mmdet.testing import demo_mm_inputs
    return demo_mm_inputs(
        2, [(3, DETECTOR_SIDE, DETECTOR_SIDE)] * 2, num_classes=30,
        num_items=[8, 8], with_mask=True)


def detector_step(model: nn.Module, data: dict) -> None:
    """Run forward and backward of a detector."""
    model.zero_grad(set_to_none=True)
    ready = model.train().data_preprocessor(copy.deepcopy(data), True)
    model.parse_losses(model(**ready, mode='loss'))[0].backward()


def fold(model: nn.Module) -> nn.Module:
    """Return a copy with the norms in the convolutions, as mmdet's tools."""
    return fuse_conv_bn(copy.deepcopy(model).eval())


@torch.no_grad()
def eval_forward(model: nn.Module, x: Tensor) -> None:
    """Run an inference pass of a model in that mode."""
    model(x)


def run(repeats: int = 5, quick: bool = False, device: str = 'cpu') -> list:
    """Return rows for training step, inference and memory of each network.

    Args:
        repeats (int): Runs of which the median counts.
        quick (bool): Depth 18 alone.
        device (str): 'cpu' or 'cuda'; the detector runs on the CPU only.

    Returns:
        list[dict]: Rows with 'case', 'ours', 'theirs', 'ratio', 'unit',
        'note'.
    """
    rows = []
    x = torch.rand(BATCH, 3, SIDE, SIDE, device=device)
    for depth in (18, ) if quick else (18, 50, 101):
        models = {n: m.to(device) for n, m in networks(depth).items()}
        case = f'R{depth} {{}}, batch {{}}, {{}} px'
        folded = {n: fold(m) for n, m in models.items()}
        inference = [('inference', eval_forward, models),
                     ('inference, norms folded', eval_forward, folded)]
        sets = [(('training step', train_step, models), x),
                *((row, x) for row in inference)]
        if depth == 50:
            large = torch.rand(LARGE, device=device)
            sets += [(row, large) for row in inference]
        for (name, step, nets), images in sets:
            for model in nets.values():
                model.train(step is train_step)
            seconds = _seconds(nets, step, images, repeats, device)
            size = 'x'.join(map(str, sorted({*images.shape[2:]})))
            rows.append(_row(case.format(name, len(images), size), seconds,
                             's'))
        sizes = {n: activation_bytes(m, x) / 2**20 for n, m in models.items()}
        rows.append(_row(case.format('kept for backward', BATCH, SIDE), sizes,
                         'MiB'))
    if device == 'cpu' and not quick:
        seconds = _seconds(detectors(), detector_step, detector_batch(),
                           repeats, device)
        rows.append(_row(
            f'demo detector training step, batch 2, {DETECTOR_SIDE} px',
            seconds, 's'))
    return rows


def _seconds(models: Dict[str, nn.Module], step: Callable, data: object,
             repeats: int, device: str) -> Dict[str, float]:
    return medians({
        name: functools.partial(step, model, data)
        for name, model in models.items()
    }, repeats, device)


def _row(case: str, values: Dict[str, float], unit: str) -> dict:
    separate = values['separate'] / values['theirs']
    return dict(
        case=case,
        ours=values['ours'],
        theirs=values['theirs'],
        ratio=values['ours'] / values['theirs'],
        unit=unit,
        note=f'separate layers: ratio {separate:.2f}')
