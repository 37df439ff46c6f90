"""What every classification config is made of: numbers typed by hand.

Parameters of the authors' networks are facts of their code (reference counts
with a 1000-way, CIFAR: 100-way, linear head); the others follow by the sums
in the comments. Legend: {config: (parameters, AGLU units, APA gates)}, named
by folder and the part of the file name before the training settings.
"""
from typing import Dict, Tuple

#: Linear head of 1000 classes with bias, and the cosine one without.
LINEAR, COSINE = 2_049_000, 2_048_000
#: Blocks have 256, 512, 1024, 2048 channels, 3 + 4 + 6 + 3 of them.
GATE_CHANNELS = 3 * 256 + 4 * 512 + 6 * 1024 + 3 * 2048
#: Two inner units of a block have a quarter of its channels each; stem 64.
UNIT_CHANNELS = 64 + GATE_CHANNELS * 3 // 2

Sizes = Dict[str, Tuple[int, int, int]]


def _imagenet() -> Sizes:
    return {
        'resnet50': (25_557_032, 0, 0),  # torchvision's ResNet-50
        'resnet50_aglu': (25_557_032 + 2 * 49, 49, 0),
        'seresnet50': (28_071_976, 0, 0),
        'apa-seresnet50_relu': (28_102_314 - 2 * 49, 0, 16),
        'apa-seresnet50': (28_102_314, 49, 16),
        'seresnet101': (49_292_328, 0, 0),
        'apa-seresnet101_relu': (49_357_618 - 2 * 100, 0, 33),
        'apa-seresnet101': (49_357_618, 100, 33),
        'seresnet152': (66_770_984, 0, 0),
        'apa-seresnet152_relu': (66_867_130 - 2 * 151, 0, 50),
        'apa-seresnet152': (66_867_130, 151, 50),
        'cbam-resnet50': (28_119_832, 0, 0),
        'apa-cbam-resnet50_relu': (28_119_994 - 2 * 49, 0, 32),
        'apa-cbam-resnet50': (28_119_994, 49, 32),
    }


def _imagenet_lt() -> Sizes:
    bias = LINEAR - COSINE
    return {
        'seresnet50': (28_071_976 - bias, 0, 0),
        'apa-seresnet50_relu': (28_102_314 - bias - 2 * 49, 0, 16),
        'apa-seresnet50': (28_102_314 - bias, 49, 16),
        # torchvision's ResNeXt-50 32x4d.
        'resnext50-32x4d_relu': (25_028_904 - bias, 0, 0),
        'resnext50-32x4d_aglu': (25_028_904 - bias + 2 * 49, 49, 0),
        'seresnext50-32x4d': (27_543_848 - bias, 0, 0),
        'apa-seresnext50-32x4d_relu': (27_574_186 - bias - 2 * 49, 0, 16),
        'apa-seresnext50-32x4d': (27_574_186 - bias, 49, 16),
        'seresnet101': (49_292_328 - bias, 0, 0),
        'apa-seresnet101_relu': (49_357_618 - bias - 2 * 100, 0, 33),
        'apa-seresnet101': (49_357_618 - bias, 100, 33),
        'seresnet152': (66_770_984 - bias, 0, 0),
        'apa-seresnet152_relu': (66_867_130 - bias - 2 * 151, 0, 50),
        'apa-seresnet152': (66_867_130 - bias, 151, 50),
    }


def _ablations() -> Sizes:
    plain, se, apa = 25_556_032, 28_070_976, 28_101_314
    both = (apa, 49, 16)
    result = {
        # Table 4a and 4e: a value or a pair in each of 16 gates, LayerNorms.
        'seresnet50_tempered-sigmoid-gate': (se + 16, 0, 0),
        'seresnet50_gumbel-gate': (se, 0, 0),
        'seresnet50_tempered-gumbel-gate': (se + 16, 0, 0),
        'seresnet50_apa-gate': (se + 32, 0, 16),
        'seresnet50_apa-gate-dropout': (se + 32, 0, 16),
        # Table 4b.
        'spatial-resnet50': (25_558_632 - 1000, 0, 0),
        'apa-spatial-resnet50_relu': (25_558_762 - 1000 - 98, 0, 16),
        'apa-spatial-resnet50': (25_558_762 - 1000, 49, 16),
        'cbam-resnet50': (28_119_832 - 1000, 0, 0),
        'apa-cbam-resnet50_relu': (28_119_994 - 1000 - 98, 0, 32),
        'apa-cbam-resnet50': (28_119_994 - 1000, 49, 32),
        # Tables 4f and 9: one pair in each of 49 units, PReLU one value.
        'apa-seresnet50_prelu': (apa - 98 + 49, 0, 16),
        'seresnet50_aglu': (se + 98, 49, 0),
        'resnet50_aglu': (plain + 98, 49, 0),
        'resnet50_prelu': (plain + 49, 0, 0),
        # Table 13.
        'apa-seresnet50_channel-units':
        (apa - 98 + 2 * UNIT_CHANNELS, 49, 16),
        'apa-seresnet50_channel-gates':
        (apa - 32 + 2 * GATE_CHANNELS, 49, 16),
        'apa-seresnet50_channel-both':
        (apa - 130 + 2 * (UNIT_CHANNELS + GATE_CHANNELS), 49, 16),
        'apa-seresnet50_linear': (28_102_314, 49, 16),
        'apa-seresnet50_learnable-cosine': (apa + 1, 49, 16),
        'apa-seresnet50_normalized-linear': both,
    }
    for unit in ('relu', 'elu', 'mish', 'gelu', 'silu'):
        result[f'resnet50_{unit}'] = (plain, 0, 0)
        result[f'apa-seresnet50_{unit}'] = (apa - 98, 0, 16)
    # Table 14: a linear classifier has biases.
    result['resnet50_relu_softmax'] = (plain, 0, 0)
    result['resnet50_plain-100e'] = (plain + 1000, 0, 0)
    result['resnet50_plain-200e'] = (plain + 1000, 0, 0)
    result['resnet50_plain-cosine-200e'] = (plain, 0, 0)
    # Tables 4c, 11 and 12 change no number of parameters.
    for name in ('softmax', 'bsce', 'drw', 'crt'):
        result[f'seresnet50_{name}'] = (se, 0, 0)
        result[f'apa-seresnet50_relu_{name}'] = (apa - 98, 0, 16)
        result[f'apa-seresnet50_aglu_{name}'] = both
    for name in ('unit-kappa-0-1', 'unit-kappa-neg2-0', 'unit-kappa-neg3-0',
                 'unit-kappa-neg2-2', 'gate-kappa-0-1',
                 'aglu_logit-adjustment', 'pc-softmax-smooth',
                 'pc-softmax-rel', 'pc-softmax-normit', 'pc-softmax-gombit',
                 'pc-softmax-base2', 'pc-softmax-base10'):
        result[f'apa-seresnet50_{name}'] = both
    return result


def _cifar() -> Sizes:
    # A learned scale instead of 100 biases.
    sizes = {
        # 15 pairs of excitation matrices, C^2 / 2 values each, less.
        'resnet32_relu': (470_004 - 99, 0, 0),
        'resnet32_aglu': (470_004 - 99 + 2 * 31, 31, 0),
        'seresnet32': (483_444 - 99, 0, 0),
        'apa-seresnet32_relu': (484_656 - 99 - 2 * 31, 0, 15),
        'apa-seresnet32': (484_656 - 99, 31, 15),
        # The gates' 30 pairs and the units' 31 make the difference.
        'cbam-resnet32': (486_886 - 99 - 2 * 61, 0, 0),
        'apa-cbam-resnet32': (486_886 - 99, 31, 30),
    }
    return {
        f'{name}_ir{factor}': size
        for name, size in sizes.items() for factor in (10, 100)
    }


FOLDERS: Dict[str, Sizes] = dict(
    imagenet=_imagenet(),
    imagenet_lt=_imagenet_lt(),
    ablations=_ablations(),
    cifar100_lt=_cifar(),
    # Without LayerNorm, 8142 classes.
    inat18={
        'seresnet50': (28_071_976 - LINEAR + 8142 * 2048, 0, 0),
        'resnet50_relu': (25_557_032 - LINEAR + 8142 * 2048, 0, 0),
        'resnet50_aglu': (25_557_032 + 98 - LINEAR + 8142 * 2048, 49, 0),
        'apa-seresnet50_relu':
        (28_102_314 - 98 - 2 * GATE_CHANNELS - LINEAR + 8142 * 2048, 0, 16),
        'apa-seresnet50':
        (28_102_314 - 2 * GATE_CHANNELS - LINEAR + 8142 * 2048, 49, 16),
    },
    places_lt={
        'seresnet152': (66_770_984 - LINEAR + 365 * 2048 + 1, 0, 0),
        'apa-seresnet152_relu':
        (66_867_130 - LINEAR + 365 * 2048 + 1 - 2 * 151, 0, 50),
        'apa-seresnet152':
        (66_867_130 - LINEAR + 365 * 2048 + 1, 151, 50),
    },
    # MMPretrain's own sizes and two values in each of twelve FFNs.
    vision_transformer={
        'vit-base-p16_gelu': (86_567_656, 0, 0),
        'vit-base-p16_aglu': (86_567_656 + 24, 12, 0)
    },
    swin_transformer={
        'swin-tiny_gelu': (28_288_354, 0, 0),
        'swin-tiny_aglu': (28_288_354 + 24, 12, 0)
    },
    digits_lt={})
#: Where the authors' command builds another network than the paper's text.
RELEASED: Sizes = {
    'places_lt/apa-seresnet152': (66_867_130 - LINEAR + 365 * 2048, 151, 50),
    'inat18/apa-seresnet50': (28_102_314 - LINEAR + 8142 * 2048, 49, 16),
    'cifar100_lt/apa-seresnet32_ir10': (484_656 - 100, 31, 15),
    'cifar100_lt/apa-seresnet32_ir100': (484_656 - 100, 31, 15),
}


def key_of(config: str) -> str:
    """Return the key of a config's path, such as 'imagenet/resnet50'.

    Example:
        >>> key_of('configs/cls/imagenet/resnet50_4xb64-mixup-100e_in1k.py')
        'imagenet/resnet50'
    """
    folder, name = config.split('/')[-2:]
    stem = name[:-len('.py')].replace('_released', '')
    words = stem.split('_')
    if folder == 'ablations':
        return f'{folder}/' + '_'.join(words[:-1])
    if folder == 'cifar100_lt':
        return '_'.join([f'{folder}/{words[0]}', *words[1:-2],
                         words[-1].split('-')[-1]])
    return f'{folder}/' + '_'.join(words[:-2])


def sizes_of(config: str) -> Tuple[int, int, int]:
    """Return what a config must have; KeyError if nobody wrote it down."""
    key = key_of(config)
    if config.endswith('_released.py') and key in RELEASED:
        return RELEASED[key]
    folder, name = key.split('/')
    return FOLDERS[folder][name]
