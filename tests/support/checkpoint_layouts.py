"""Names and shapes of other codes' checkpoints, written from their layout.

Nothing here comes from the package: these are the layouts that its key tables
have to explain. The order of names is that of the sources.
"""
import math
from collections import OrderedDict

import torch

RESNETS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
APA = {'lambda_param': (1, ), 'kappa_param': (1, )}


def bn(prefix, channels):
    shapes = {
        f'{prefix}.{leaf}': (channels, )
        for leaf in ('weight', 'bias', 'running_mean', 'running_var')
    }
    shapes[f'{prefix}.num_batches_tracked'] = ()
    return shapes


def under(prefix, shapes):
    return {f'{prefix}.{name}': shape for name, shape in shapes.items()}


def authors_se(channels, apa, reduction=16, gate='uniact'):
    shapes = {}
    if apa:
        shapes.update(under('se.norm', {
            'weight': (channels, ),
            'bias': (channels, )
        }))
        shapes.update(under(f'se.{gate}', APA))
    hidden = channels // reduction
    shapes['se.excitation.0.weight'] = (hidden, channels)
    shapes['se.excitation.2.weight'] = (channels, hidden)
    return shapes


def authors_spatial(apa, attribute='cbam'):
    prefix = f'{attribute}.SpatialGate'
    shapes = {f'{prefix}.spatial.conv.weight': (1, 2, 7, 7)}
    shapes.update(bn(f'{prefix}.spatial.bn', 1))
    if apa:
        shapes.update(under(f'{prefix}.uniact', APA))
    return shapes


def authors_cbam(channels,
                 apa,
                 spatial_apa,
                 reduction=16,
                 attribute='cbam',
                 norm=True):
    prefix = f'{attribute}.ChannelGate'
    hidden = channels // reduction
    shapes = {}
    if norm:
        shapes[f'{prefix}.norm.weight'] = (channels, )
        shapes[f'{prefix}.norm.bias'] = (channels, )
    shapes[f'{prefix}.mlp.1.weight'] = (hidden, channels)
    shapes[f'{prefix}.mlp.1.bias'] = (hidden, )
    shapes[f'{prefix}.mlp.3.weight'] = (channels, hidden)
    shapes[f'{prefix}.mlp.3.bias'] = (channels, )
    if apa:
        shapes.update(under(f'{prefix}.uniact', APA))
    shapes.update(authors_spatial(spatial_apa, attribute))
    return shapes


def resnet_block(inputs, width, out, inner, groups, bottleneck, project):
    if bottleneck:
        convs = [(inner, inputs, 1, 1), (inner, inner // groups, 3, 3),
                 (out, inner, 1, 1)]
    else:
        convs = [(out, inputs, 3, 3), (out, out, 3, 3)]
    shapes = {}
    for j, shape in enumerate(convs, start=1):
        shapes[f'conv{j}.weight'] = shape
        shapes.update(bn(f'bn{j}', shape[0]))
    shortcut = {}
    if project:
        shortcut['downsample.0.weight'] = (out, inputs, 1, 1)
        shortcut.update(bn('downsample.1', out))
    return shapes, shortcut


def resnet(depth=50, groups=1, base_width=64, units=None, attention=None,
           stem_unit='relu'):
    """Any torchvision-named ResNet; ``attention(channels)`` gives shapes."""
    counts, bottleneck = RESNETS[depth]
    shapes = {'conv1.weight': (64, 3, 7, 7), **bn('bn1', 64)}
    if units:
        shapes.update(under(stem_unit, APA))
    inputs = 64
    for s, count in enumerate(counts, start=1):
        width = 64 * 2**(s - 1)
        out = width * (4 if bottleneck else 1)
        inner = int(width * base_width / 64) * groups
        for b in range(count):
            project = b == 0 and (s > 1 or inputs != out)
            block, shortcut = resnet_block(inputs, width, out, inner, groups,
                                           bottleneck, project)
            if units:
                for j in range(1, 4 if bottleneck else 3):
                    block.update(under(f'{units}{j}', APA))
            block.update(shortcut)
            if attention:
                block.update(attention(out))
            shapes.update(under(f'layer{s}.{b}', block))
            inputs = out
    return shapes


def authors_resnet(depth=50, apa=True, attention='se', spatial_apa=True,
                   groups=1, base_width=64):
    """Backbone of the authors' ImageNet networks, without classifier."""
    kinds = {
        'se': lambda c: authors_se(c, apa),
        'cbam': lambda c: authors_cbam(c, apa, apa and spatial_apa),
        'spatial': lambda c: authors_spatial(apa),
    }
    return resnet(depth, groups, base_width, 'unirect' if apa else None,
                  kinds[attention])


def authors_cifar(apa=True, attention='se', spatial_apa=True, blocks=5):
    shapes = {'conv1.weight': (16, 3, 3, 3), **bn('bn1', 16)}
    if apa:
        shapes.update(under('unirect', APA))
    inputs = 16
    for s, out in enumerate((16, 32, 64), start=1):
        for b in range(blocks):
            block, _ = resnet_block(inputs, out, out, out, 1, False, False)
            if apa:
                for j in (1, 2):
                    block.update(under(f'unirect{j}', APA))
            if attention == 'se':
                block.update(authors_se(out, apa, 4, 'unact'))
            else:
                block.update(
                    authors_cbam(out, apa, apa and spatial_apa, 4, 'cb'))
            shapes.update(under(f'layer{s}.{b}', block))
            inputs = out
    return shapes


def classifier(kind, classes, features, name='fc'):
    if kind == 'norm':
        return {f'{name}.weight': (features, classes),
                f'{name}.bias': (classes, )}
    shapes = {f'{name}.scale': (1, )} if kind == 'lr_cosine' else {}
    shapes[f'{name}.weight'] = (classes, features)
    if kind in (None, 'linear', 'inv'):
        shapes[f'{name}.bias'] = (classes, )
    return shapes


def conv(name, out, inputs, kernel):
    return {f'{name}.weight': (out, inputs, kernel, kernel),
            f'{name}.bias': (out, )}


def linear(name, out, inputs):
    return {f'{name}.weight': (out, inputs), f'{name}.bias': (out, )}


def authors_detector(name, depth=None, apa=True):
    """One of the five detectors, by the authors' names."""
    depth = depth or (101 if name == 'lvis-r101' else 50)
    shapes = under('backbone', authors_resnet(depth, apa))
    widths = [64, 128, 256, 512]
    factor = 4 if depth >= 50 else 1
    for i, width in enumerate(widths):
        shapes.update(
            conv(f'neck.lateral_convs.{i}.conv', 256, width * factor, 1))
    for i in range(4):
        shapes.update(conv(f'neck.fpn_convs.{i}.conv', 256, 256, 3))
    shapes.update(conv('rpn_head.rpn_conv', 256, 256, 3))
    shapes.update(conv('rpn_head.rpn_cls', 3, 256, 1))
    shapes.update(conv('rpn_head.rpn_reg', 12, 256, 1))
    cauchy = name.startswith('v3det')
    classes = {'lvis': 1203, 'coco': 81, 'v3det': 13205}[name.split('-')[0]]
    boxes = 4 if cauchy else 4 * (80 if name.startswith('coco') else 1203)
    stages = ['.0', '.1', '.2'] if name == 'v3det-cascade' else ['']
    for stage in stages:
        head = f'roi_head.bbox_head{stage}'
        shapes.update(linear(f'{head}.fc_cls', classes, 1024))
        if cauchy:
            shapes[f'{head}.fc_cls.g'] = (classes, )
        shapes.update(linear(f'{head}.fc_reg', boxes, 1024))
        shapes.update(linear(f'{head}.shared_fcs.0', 1024, 12544))
        shapes.update(linear(f'{head}.shared_fcs.1', 1024, 1024))
    if cauchy:
        return shapes
    mask = 'roi_head.mask_head'
    for i in range(4):
        shapes.update(conv(f'{mask}.convs.{i}.conv', 256, 256, 3))
    if name == 'lvis-r50':
        shapes.update(conv(f'{mask}.upsample.channel_compressor', 64, 256, 1))
        shapes.update(conv(f'{mask}.upsample.content_encoder', 100, 64, 3))
        shapes[f'{mask}.conv_logits.tempearture'] = ()
    else:
        shapes.update(conv(f'{mask}.upsample', 256, 256, 2))
    mask_classes = 80 if name.startswith('coco') else 1203
    shapes.update(conv(f'{mask}.conv_logits', mask_classes, 256, 1))
    return shapes


def timm_se(channels, reduction=16):
    hidden = channels // reduction
    return {**conv('se.fc1', hidden, channels, 1),
            **conv('se.fc2', channels, hidden, 1)}


def timm_cbam(channels):
    shapes = {
        'se.channel.fc1.weight': (channels // 16, channels, 1, 1),
        'se.channel.fc2.weight': (channels, channels // 16, 1, 1),
        'se.spatial.conv.conv.weight': (1, 2, 7, 7),
    }
    shapes.update(bn('se.spatial.conv.bn', 1))
    return shapes


def legacy_se(channels):
    hidden = channels // 16
    return {**conv('se_module.fc1', hidden, channels, 1),
            **conv('se_module.fc2', channels, hidden, 1)}


def hollow(shapes):
    """Tensors that share one number: enough for names, shapes and counts."""
    return OrderedDict(
        (name, torch.ones(
            (), dtype=torch.int64 if name.endswith('tracked') else
            torch.float32).expand(shape)) for name, shape in shapes.items())


def random(shapes, seed=0):
    """Values at which a network neither dies nor explodes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape, low, high):
        return low + (high - low) * torch.rand(shape, generator=generator)

    tensors = OrderedDict()
    for name, shape in shapes.items():
        leaf = name.rsplit('.', 1)[-1]
        if leaf == 'num_batches_tracked':
            value = torch.tensor(7)
        elif leaf == 'running_var':
            value = uniform(shape, 0.5, 1.5)
        elif leaf == 'kappa_param':
            value = uniform(shape, 0.8, 1.2)
        elif leaf == 'lambda_param':
            value = uniform(shape, 0.05, 1.0)
        elif leaf in ('scale', 'tempearture'):
            value = uniform(shape, 4.0, 5.0)
        elif len(shape) == 1 and leaf == 'weight':
            value = uniform(shape, 0.6, 1.1)
        elif len(shape) > 1:
            std = math.sqrt(2 / max(1, math.prod(shape[1:])))
            value = std * torch.randn(shape, generator=generator)
        else:
            value = 0.1 * torch.randn(shape, generator=generator)
        tensors[name] = value
    return tensors


def parameters(shapes):
    """Names that are parameters: neither counters nor statistics."""
    return [n for n in shapes if not n.endswith(
        ('running_mean', 'running_var', 'num_batches_tracked'))]
