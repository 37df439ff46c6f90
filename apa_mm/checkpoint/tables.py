"""Key tables: how each source names what we name, one table per source.

A line holds the source's name, ours unless it is the same, and a change of
shape. ``B`` is a block; ``{x}`` stands for letters and underscores,
``{path}`` for any number of parts, every other field for a number. Backbone
names are without the prefix ``backbone.``; the classifier is ``head.fc``.
"""
from typing import Dict, NamedTuple, Optional, Tuple

_BLOCK = 'layer{s}.{b}.'


class Rule(NamedTuple):
    """A name of the source, our name for it, and a key of ``CHANGES``."""

    source: str
    target: str
    change: str = ''


class Table(NamedTuple):
    """One source.

    ``unit_clamp`` is how its units keep lambda positive: 'shifted' for
    max(lambda, 0) + 1e-8, 'floor' for max(lambda, 1e-4).
    """

    name: str  # in options and in ``meta``
    title: str  # what a person calls it
    backbone: Tuple[Rule, ...]  # names below the backbone
    others: Tuple[Rule, ...]  # names beside it, complete
    marks: Tuple[str, ...]  # backbone names; one is enough
    foreign: Tuple[str, ...] = ()  # backbone names that must not occur
    prefixed: Optional[bool] = None  # has "backbone."; None for either
    unit_clamp: str = 'floor'
    backbone_type: str = ''  # our class, if not APAResNet


def _rules(lines: str) -> Tuple[Rule, ...]:
    """Read the lines of a table; 'apa' stands for kappa and lambda."""
    rules = []
    for line in lines.replace('B.', _BLOCK).splitlines():
        source, target, change = (line.split() + [''] * 3)[:3]
        if change == 'apa':
            rules += [
                Rule(f'{source}.kappa_param', f'{target}.kappa', 'flat'),
                Rule(f'{source}.lambda_param', f'{target}.lambd', 'flat')]
        elif source:
            rules.append(Rule(source, target or source, change))
    return tuple(rules)


def _table(name: str, title: str, backbone: str, others: str, marks: str,
           foreign: str = '', **facts: object) -> Table:
    marks, foreign = (tuple(text.replace('B.', _BLOCK).split())
                      for text in (marks, foreign))
    return Table(name, title, _rules(backbone), _rules(others), marks, foreign,
                 **facts)


_BLOCKS = '''
B.conv{j}.weight
B.bn{j}.{x}
B.downsample.0.weight
B.downsample.1.{x}
'''
_RESNET = '''
conv1.weight
bn1.{x}
''' + _BLOCKS
#: In ResNet-D a pooling is number 0 of the shortcut.
_BLOCKS_D = _BLOCKS + 'B.downsample.2.{x}\n'
#: timm's names of the deep stem are ours.
_RESNET_D = _RESNET + 'conv1.{i}.{x}\nB.downsample.2.{x}\n'

_CBAM = '''
B.cbam.ChannelGate.norm.{x}              B.attention.channel.norm.{x}
B.cbam.ChannelGate.mlp.1.{x}             B.attention.channel.fc1.{x}
B.cbam.ChannelGate.mlp.3.{x}             B.attention.channel.fc2.{x}
B.cbam.ChannelGate.uniact                B.attention.channel.gate  apa
'''
_SPATIAL = '''
B.cbam.SpatialGate.spatial.conv.weight   B.attention.spatial.conv.weight
B.cbam.SpatialGate.spatial.bn.{x}        B.attention.spatial.bn.{x}
B.cbam.SpatialGate.uniact                B.attention.spatial.gate  apa
'''
_AUTHORS_UNITS = '''
relu                                     act1                      apa
B.unirect{j}                             B.act{j}                  apa
'''
_AUTHORS_SE = '''
B.se.norm.{x}                            B.attention.norm.{x}
B.se.uniact                              B.attention.gate          apa
B.se.excitation.0.weight                 B.attention.fc1.weight
B.se.excitation.2.weight                 B.attention.fc2.weight
'''
_AUTHORS = _RESNET + _AUTHORS_UNITS + _AUTHORS_SE + _CBAM + _SPATIAL
_AUTHORS_CIFAR = _AUTHORS.replace('relu ', 'unirect ').replace(
    'se.uniact', 'se.unact').replace('.cbam.', '.cb.')
_AUTHORS_MARKS = ('B.unirect{j}.kappa_param relu.kappa_param '
                  'B.se.excitation.0.weight B.se.norm.weight '
                  'B.cbam.ChannelGate.mlp.1.weight')

_FC = '''
fc.scale  head.fc.temperature  scalar
fc.{x}    head.fc.{x}
'''
_HEAD = 'head.fc.{x}'
#: Detectors: stock mmdet names, but for the misspelt temperature and s_.
_DETECTOR = '''
roi_head.mask_head.conv_logits.tempearture  \
roi_head.mask_head.conv_logits.temperature
roi_head.bbox_head.fc_cls.s_                roi_head.bbox_head.fc_cls.scale
roi_head.bbox_head.{i}.fc_cls.s_            roi_head.bbox_head.{i}.fc_cls.scale
neck.{path}
rpn_head.{path}
roi_head.{path}
'''
#: Any other mm model: what is beside the backbone keeps its name.
_ANYTHING = _DETECTOR + '{path}\n'

_MMPRETRAIN_SE = '''
B.se_layer.conv1.conv.{x}  B.attention.fc1.{x}  linear
B.se_layer.conv2.conv.{x}  B.attention.fc2.{x}  linear
'''

#: By name, in the order in which they are tried.
TABLES: Dict[str, Table] = {table.name: table for table in (
    _table(
        'authors-cifar', "the authors' CIFAR classification code",
        _AUTHORS_CIFAR, _FC.replace('\nfc.', '\nlinear.'),
        marks='unirect.kappa_param B.se.unact.kappa_param '
        'B.cb.SpatialGate.spatial.conv.weight linear.weight',
        prefixed=False, unit_clamp='shifted',
        backbone_type='apa_mm.APAResNetCIFAR'),
    _table('authors-detection', "the authors' detection code", _AUTHORS,
           _DETECTOR, marks=_AUTHORS_MARKS, prefixed=True),
    _table(
        'authors-spatial',
        "the authors' classification code (spatial attention)",
        _RESNET + _AUTHORS_UNITS + _SPATIAL.replace('attention.spatial.',
                                                    'attention.'), _FC,
        marks='B.cbam.SpatialGate.spatial.conv.weight',
        foreign='B.cbam.ChannelGate.mlp.1.weight',
        prefixed=False, unit_clamp='shifted'),
    _table('cbam', 'the original CBAM code', _RESNET + _CBAM + _SPATIAL, _FC,
           marks='B.cbam.ChannelGate.mlp.1.weight',
           foreign='B.cbam.ChannelGate.norm.weight relu.kappa_param',
           prefixed=False),
    _table('authors-classification', "the authors' classification code",
           _AUTHORS, _FC, marks=_AUTHORS_MARKS, prefixed=False,
           unit_clamp='shifted'),
    _table('ultralytics', "Ultralytics' AGLU modules", '', '{path}',
           marks='model.{i}.{path}.kappa {i}.{path}.kappa', prefixed=False),
    _table('apa_mm', 'apa_mm',
           _RESNET_D + 'act1.{x}\nB.act{j}.{x}\nB.attention.{path}\n{path}',
           _ANYTHING,
           marks='act1.kappa B.act{j}.kappa B.attention.{path} {path}.kappa'),
    _table('mmpretrain-d', "MMPretrain's ResNetV1d",
           _BLOCKS_D + _MMPRETRAIN_SE + '''
stem.0.conv.weight  conv1.0.weight
stem.0.bn.{x}       conv1.1.{x}
stem.1.conv.weight  conv1.3.weight
stem.1.bn.{x}       conv1.4.{x}
stem.2.conv.weight  conv1.6.weight
stem.2.bn.{x}       bn1.{x}
''', _HEAD, marks='stem.0.conv.weight', prefixed=True),
    _table('mmpretrain', 'MMPretrain', _RESNET + _MMPRETRAIN_SE, _HEAD,
           marks='B.se_layer.conv1.conv.weight head.fc.weight',
           prefixed=True),
    _table('mmdet-d', "ResNetV1c and V1d of MMDetection and MMSegmentation",
           _BLOCKS_D + '''
stem.0.weight  conv1.0.weight
stem.1.{x}     conv1.1.{x}
stem.3.weight  conv1.3.weight
stem.4.{x}     conv1.4.{x}
stem.6.weight  conv1.6.weight
stem.7.{x}     bn1.{x}
''', _ANYTHING, marks='stem.0.weight'),
    _table('mmdet', 'MMDetection', _RESNET, _ANYTHING, marks='conv1.weight',
           prefixed=True),
    _table('timm-legacy', "timm's legacy SE-ResNet and its ancestors",
           _BLOCKS + '''
layer0.conv1.weight   conv1.weight
layer0.bn1.{x}        bn1.{x}
B.se_module.fc1.{x}   B.attention.fc1.{x}  linear
B.se_module.fc2.{x}   B.attention.fc2.{x}  linear
''', _FC.replace('\nfc.', '\nlast_linear.'), marks='layer0.conv1.weight',
           prefixed=False, backbone_type='apa_mm.APAResNetLegacy'),
    # timm stacks [mean, max] before the spatial convolution, we [max, mean].
    _table('timm', 'timm', _RESNET_D + '''
B.se.fc1.{x}                    B.attention.fc1.{x}              linear
B.se.fc2.{x}                    B.attention.fc2.{x}              linear
B.se.channel.fc1.{x}            B.attention.channel.fc1.{x}      linear
B.se.channel.fc2.{x}            B.attention.channel.fc2.{x}      linear
B.se.spatial.conv.conv.weight   B.attention.spatial.conv.weight  swap
B.se.spatial.conv.bn.{x}        B.attention.spatial.bn.{x}
''', _FC, marks='B.se.fc1.weight B.se.channel.fc1.weight conv1.0.weight',
           prefixed=False),
    _table('torchvision', 'torchvision', _RESNET, _FC, marks='conv1.weight',
           prefixed=False),
)}
