"""AutoAugment's CIFAR-10 policy against torchvision's, and Cutout."""
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS
from torchvision.transforms import AutoAugment as TorchvisionAutoAugment
from torchvision.transforms import AutoAugmentPolicy

from apa_mm.cls.transforms import CIFARAutoAugment
from apa_mm.cls.transforms.auto_augment import step_config

SIDE = 32
# MMPretrain's name and argument of torchvision's operations.
NAMES = dict(
    Brightness=('Brightness', 'magnitude'),
    Color=('ColorTransform', 'magnitude'),
    Contrast=('Contrast', 'magnitude'),
    Posterize=('Posterize', 'bits'),
    Rotate=('Rotate', 'angle'),
    Sharpness=('Sharpness', 'magnitude'),
    ShearX=('Shear', 'magnitude'),
    ShearY=('Shear', 'magnitude'),
    Solarize=('Solarize', 'thr'),
    TranslateX=('Translate', 'magnitude'),
    TranslateY=('Translate', 'magnitude'))


def test_the_policy_is_the_published_one():
    reference = TorchvisionAutoAugment(AutoAugmentPolicy.CIFAR10)
    space = reference._augmentation_space(10, (SIDE, SIDE))
    ours = CIFARAutoAugment()
    assert len(ours.policies) == len(reference.policies) == 25
    for pair, expected in zip(ours.policies, reference.policies, strict=True):
        for step, (name, prob, level) in zip(pair, expected, strict=True):
            kind, argument = NAMES.get(name, (name, None))
            assert step['type'] == kind and step['prob'] == prob
            if argument is None:
                assert level is None
                continue
            value = step[argument]
            if kind == 'Translate':
                value = value * SIDE
            assert value == pytest.approx(float(space[name][0][level]))
            if kind in ('Shear', 'Translate'):
                assert step['direction'] == dict(
                    X='horizontal', Y='vertical')[name[-1]]


def test_signed_operations_take_both_directions_and_others_none():
    reference = TorchvisionAutoAugment(AutoAugmentPolicy.CIFAR10)
    space = reference._augmentation_space(10, (SIDE, SIDE))
    for pair in reference.policies:
        for step in pair:
            transform = TRANSFORMS.build(
                {**step_config(step), '_scope_': 'mmpretrain'})
            signed = space[step[0]][1]
            if step[2] is not None:
                assert transform.random_negative_prob == (.5 if signed else 0)


@pytest.mark.parametrize('order', ['rgb', 'bgr'])
def test_images_keep_shape_and_type(order):
    np.random.seed(0)
    transform = TRANSFORMS.build(
        dict(type='apa_mm.CIFARAutoAugment', channel_order=order))
    image = np.random.randint(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    changed = 0
    for _ in range(100):
        out = transform(dict(img=image.copy()))['img']
        assert out.shape == image.shape and out.dtype == np.uint8
        changed += (out != image).any()
    assert changed > 50


def test_saturation_weighs_the_channels_by_their_order():
    # Without its colour, pure red has luma 76 (0.299) and pure blue 29.
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    for order, luma in (('rgb', 76), ('bgr', 29)):
        transform = CIFARAutoAugment(channel_order=order)
        step = TRANSFORMS.build(
            dict(
                type='mmpretrain.ColorTransform',
                magnitude=-1.,
                prob=1.,
                random_negative_prob=0.))
        transform.transforms = [step]
        transform.prob = None
        out = transform(dict(img=red.copy()))['img']
        assert (out == luma).all()


def test_gaps_are_filled():
    transform = CIFARAutoAugment(pad_val=7)
    steps = [s for pair in transform.policies for s in pair]
    assert {s.get('pad_val') for s in steps} == {7, None}
    with pytest.raises(ValueError, match='channel_order must be one of'):
        CIFARAutoAugment(channel_order='grey')


def test_cutout_of_one_hole_is_in_mmpretrain():
    np.random.seed(0)
    transform = TRANSFORMS.build(
        dict(type='mmpretrain.Cutout', shape=16, pad_val=0, prob=1.))
    sizes = []
    for _ in range(200):
        image = np.full((SIDE, SIDE, 3), 255, np.uint8)
        hole = (transform(dict(img=image))['img'] == 0).all(2)
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert hole.sum() == rows * columns
        sizes.append((rows, columns))
    assert max(sizes) == (16, 16) and min(min(s) for s in sizes) < 16
