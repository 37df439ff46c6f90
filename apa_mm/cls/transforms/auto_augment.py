"""AutoAugment with the policy that was found on CIFAR-10."""
from typing import Dict, Optional, Tuple

import numpy as np
from mmpretrain.datasets.transforms import AutoAugment

from apa_mm.registry import TRANSFORMS
from apa_mm.utils.checks import check_choice

__all__ = ['CIFAR10_POLICY', 'CIFARAutoAugment']

#: The 25 sub-policies of the AutoAugment paper (Cubuk et al., CVPR 2019,
#: appendix, policy for CIFAR-10): two steps of operation, probability and
#: magnitude level in 0 to 9; None for operations without a magnitude.
CIFAR10_POLICY = (
    (('Invert', .1, None), ('Contrast', .2, 6)),
    (('Rotate', .7, 2), ('TranslateX', .3, 9)),
    (('Sharpness', .8, 1), ('Sharpness', .9, 3)),
    (('ShearY', .5, 8), ('TranslateY', .7, 9)),
    (('AutoContrast', .5, None), ('Equalize', .9, None)),
    (('ShearY', .2, 7), ('Posterize', .3, 7)),
    (('Color', .4, 3), ('Brightness', .6, 7)),
    (('Sharpness', .3, 9), ('Brightness', .7, 9)),
    (('Equalize', .6, None), ('Equalize', .5, None)),
    (('Contrast', .6, 7), ('Sharpness', .6, 5)),
    (('Color', .7, 7), ('TranslateX', .5, 8)),
    (('Equalize', .3, None), ('AutoContrast', .4, None)),
    (('TranslateY', .4, 3), ('Sharpness', .2, 6)),
    (('Brightness', .9, 6), ('Color', .2, 8)),
    (('Solarize', .5, 2), ('Invert', 0., None)),
    (('Equalize', .2, None), ('AutoContrast', .6, None)),
    (('Equalize', .2, None), ('Equalize', .6, None)),
    (('Color', .9, 9), ('Equalize', .6, None)),
    (('AutoContrast', .8, None), ('Solarize', .2, 8)),
    (('Brightness', .1, 3), ('Color', .7, 0)),
    (('Solarize', .4, 5), ('AutoContrast', .9, None)),
    (('TranslateY', .9, 9), ('TranslateY', .7, 9)),
    (('AutoContrast', .9, None), ('Solarize', .8, 3)),
    (('Equalize', .8, None), ('Invert', .1, None)),
    (('TranslateY', .7, 9), ('AutoContrast', .9, None)),
)
MAX_LEVEL = 9
#: Largest shift as a share of the image, as found on images of 331 pixels.
MAX_TRANSLATE = 150 / 331

Step = Tuple[str, float, Optional[int]]


def step_config(step: Step, pad_val: int = 128) -> Dict[str, object]:
    """Return MMPretrain's transform for one step of the policy.

    Args:
        step (tuple): Operation, probability in [0, 1] and level in 0 to 9.
        pad_val (int): Fills gaps that a geometric operation leaves, 0 to 255.
            Defaults to 128.

    Returns:
        dict: Config of the transform. Operations with two directions take
        either one with the same chance.

    Example:
        >>> step_config(('Rotate', .7, 9))
        {'type': 'Rotate', 'angle': 30.0, 'pad_val': 128, 'prob': 0.7}
    """
    name, prob, level = step
    share = 0. if level is None else level / MAX_LEVEL
    enhance = dict(magnitude=.9 * share)
    shear = dict(type='Shear', magnitude=.3 * share, pad_val=pad_val)
    translate = dict(
        type='Translate', magnitude=MAX_TRANSLATE * share, pad_val=pad_val)
    settings = dict(
        AutoContrast=dict(),
        Brightness=enhance,
        Color=dict(type='ColorTransform', **enhance),
        Contrast=enhance,
        Equalize=dict(),
        Invert=dict(),
        Posterize=dict(bits=8 - round(4 * share)),
        Rotate=dict(angle=30. * share, pad_val=pad_val),
        Sharpness=enhance,
        ShearX=dict(direction='horizontal', **shear),
        ShearY=dict(direction='vertical', **shear),
        Solarize=dict(thr=255. * (1 - share)),
        TranslateX=dict(direction='horizontal', **translate),
        TranslateY=dict(direction='vertical', **translate))
    return {'type': name, **settings[name], 'prob': prob}


@TRANSFORMS.register_module()
class CIFARAutoAugment(AutoAugment):
    """AutoAugment with the policy for CIFAR-10, which CIFAR-100 uses too.

    One of 25 pairs of operations, drawn anew for every image. MMPretrain has
    the operations and the policy for ImageNet.

    Args:
        channel_order (str): 'rgb' as the CIFAR data sets give their images,
            or 'bgr' for images that were loaded from files. Saturation and
            contrast weigh the channels by it. Defaults to 'rgb'.
        pad_val (int): Fills gaps that a geometric operation leaves, 0 to 255.
            Defaults to 128, which is grey.

    Raises:
        ValueError: If ``channel_order`` is something else.
    """

    def __init__(self,
                 channel_order: str = 'rgb',
                 pad_val: int = 128) -> None:
        check_choice('channel_order', channel_order, ('rgb', 'bgr'))
        self.channel_order = channel_order
        super().__init__(
            policies=[[step_config(step, pad_val) for step in pair]
                      for pair in CIFAR10_POLICY],
            hparams=dict())

    def transform(self, results: dict) -> Optional[dict]:
        """Apply one pair of operations.

        Args:
            results (dict): With 'img', (H, W, 3), uint8.

        Returns:
            dict: With the changed 'img'.
        """
        if self.channel_order == 'bgr':
            return super().transform(results)
        results['img'] = _reverse_channels(results['img'])
        results = super().transform(results)
        if results is not None:
            results['img'] = _reverse_channels(results['img'])
        return results


def _reverse_channels(image: np.ndarray) -> np.ndarray:
    # OpenCV refuses views with a negative stride.
    return np.ascontiguousarray(image[..., ::-1])
