"""The augmentations of the recipes are torchvision's, as the paper's are."""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope
from PIL import Image
from torchvision import transforms
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode

DATASETS = Path(__file__).parents[2] / 'configs/_base_/datasets'
BILINEAR = InterpolationMode.BILINEAR
#: Config, torchvision's transform, whether images are loaded as BGR.
CASES = {
    'imagenet-lt': (transforms.AutoAugment(
        AutoAugmentPolicy.IMAGENET, interpolation=BILINEAR), True),
    'imagenet_192': (transforms.AutoAugment(
        AutoAugmentPolicy.IMAGENET, interpolation=BILINEAR), True),
    'inat18_repeataug': (transforms.RandAugment(num_ops=2, magnitude=9), True),
    'cifar100-lt_ir100': (transforms.AutoAugment(
        AutoAugmentPolicy.CIFAR10, interpolation=BILINEAR), False),
}


def augmentation(name):
    """Return the steps of a pipeline from numpy to PIL and back."""
    cfg = Config.fromfile(DATASETS / f'{name}.py')
    init_default_scope('mmpretrain')
    steps = [dict(step) for step in cfg.train_pipeline]
    kinds = [step['type'] for step in steps]
    first, last = kinds.index('NumpyToPIL'), kinds.index('PILToNumpy')
    assert last == first + 2
    return [TRANSFORMS.build(step) for step in steps[first:last + 1]]


@pytest.mark.parametrize('name', CASES)
def test_augmentation_is_torchvisions(name):
    reference, bgr = CASES[name]
    steps = augmentation(name)
    rgb = np.random.RandomState(0).randint(0, 256, (32, 32, 3), np.uint8)
    rgb[..., 0] //= 4  # saturation and equalisation see the channels' order
    changed = 0
    for seed in range(60):
        torch.manual_seed(seed)
        want = np.array(reference(Image.fromarray(rgb)))
        torch.manual_seed(seed)
        results = dict(img=(rgb[..., ::-1] if bgr else rgb).copy())
        for step in steps:
            results = step(results)
        got = results['img'][..., ::-1] if bgr else results['img']
        assert got.dtype == np.uint8 and (got == want).all()
        changed += (got != rgb).any()
    assert changed > 40


def test_cutout_of_one_hole_is_in_mmpretrain():
    np.random.seed(0)
    transform = TRANSFORMS.build(
        dict(type='mmpretrain.Cutout', shape=16, pad_val=0, prob=1.))
    sizes = []
    for _ in range(200):
        image = np.full((32, 32, 3), 255, np.uint8)
        hole = (transform(dict(img=image))['img'] == 0).all(2)
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert hole.sum() == rows * columns
        sizes.append((rows, columns))
    assert max(sizes) == (16, 16) and min(min(s) for s in sizes) < 16
