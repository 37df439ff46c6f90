"""Key tables: how each source names what we name, one table per source.

Backbone templates are without the prefix ``backbone.``, which a source has
(mmpretrain, mmdet) or has not (torchvision). Ours are the names of
``APAResNet`` and its relatives; the classifier is ``head.fc``.
"""
from typing import Dict, NamedTuple, Tuple

from .templates import Rule

__all__ = ['TABLES', 'Table']


class Table(NamedTuple):
    """One source.

    Attributes:
        name (str): Its name in options and in ``meta``.
        title (str): What a person calls it.
        backbone (tuple[Rule]): Names below the backbone.
        others (tuple[Rule]): Names beside it, complete.
        marks (tuple[str]): Templates of backbone names; one is enough.
        foreign (tuple[str]): Templates that must not occur.
        prefixed (bool, optional): Whether the backbone has its prefix; None
            for either.
        unit_clamp (str): How its units keep lambda positive: 'shifted' for
            max(lambda, 0) + 1e-8, 'floor' for max(lambda, 1e-4).
        backbone_type (str, optional): Our class, if not APAResNet.
    """

    name: str
    title: str
    backbone: Tuple[Rule, ...]
    others: Tuple[Rule, ...]
    marks: Tuple[str, ...] = ()
    foreign: Tuple[str, ...] = ()
    prefixed: object = None
    unit_clamp: str = 'floor'
    backbone_type: str = ''


def _same(*names: str) -> Tuple[Rule, ...]:
    return tuple(Rule(name, name) for name in names)


def _apa(source: str, target: str) -> Tuple[Rule, ...]:
    """Pair the two parameters of an APA gate or AGLU unit."""
    return (Rule(f'{source}.kappa_param', f'{target}.kappa', 'flat'),
            Rule(f'{source}.lambda_param', f'{target}.lambd', 'flat'))


_B = 'layer{s}.{b}.'
_BLOCKS = _same(f'{_B}conv{{j}}.weight', f'{_B}bn{{j}}.{{x}}',
                f'{_B}downsample.0.weight', f'{_B}downsample.1.{{x}}')
_RESNET = _same('conv1.weight', 'bn1.{x}') + _BLOCKS
#: Blocks of ResNet-D: a pooling is number 0 of the shortcut.
_BLOCKS_D = _BLOCKS + _same(f'{_B}downsample.2.{{x}}')
#: ResNet-D with its deep stem under timm's names, which are ours.
_RESNET_D = _RESNET + _same('conv1.{i}.{x}', f'{_B}downsample.2.{{x}}')


def _spatial(attribute: str, target: str) -> Tuple[Rule, ...]:
    source = f'{_B}{attribute}.SpatialGate.'
    return (
        Rule(f'{source}spatial.conv.weight', f'{target}.conv.weight'),
        Rule(f'{source}spatial.bn.{{x}}', f'{target}.bn.{{x}}'),
        *_apa(f'{source}uniact', f'{target}.gate'),
    )


def _cbam(attribute: str) -> Tuple[Rule, ...]:
    source = f'{_B}{attribute}.ChannelGate.'
    target = f'{_B}attention.channel.'
    return (
        Rule(f'{source}norm.{{x}}', f'{target}norm.{{x}}'),
        Rule(f'{source}mlp.1.{{x}}', f'{target}fc1.{{x}}'),
        Rule(f'{source}mlp.3.{{x}}', f'{target}fc2.{{x}}'),
        *_apa(f'{source}uniact', f'{target}gate'),
        *_spatial(attribute, f'{_B}attention.spatial'),
    )


def _authors_se(gate: str) -> Tuple[Rule, ...]:
    return (
        Rule(f'{_B}se.norm.{{x}}', f'{_B}attention.norm.{{x}}'),
        *_apa(f'{_B}se.{gate}', f'{_B}attention.gate'),
        Rule(f'{_B}se.excitation.0.weight', f'{_B}attention.fc1.weight'),
        Rule(f'{_B}se.excitation.2.weight', f'{_B}attention.fc2.weight'),
    )


_AUTHORS_UNITS = _apa(f'{_B}unirect{{j}}', f'{_B}act{{j}}')
_AUTHORS = (*_RESNET, *_apa('relu', 'act1'), *_AUTHORS_UNITS,
            *_authors_se('uniact'), *_cbam('cbam'))
_AUTHORS_CIFAR = (*_RESNET, *_apa('unirect', 'act1'), *_AUTHORS_UNITS,
                  *_authors_se('unact'), *_cbam('cb'))
_CBAM_CHANNEL = f'{_B}cbam.ChannelGate.mlp.1.weight'
_AUTHORS_MARKS = (f'{_B}unirect{{j}}.kappa_param', 'relu.kappa_param',
                  f'{_B}se.excitation.0.weight', f'{_B}se.norm.weight',
                  _CBAM_CHANNEL)


def _classifier(name: str) -> Tuple[Rule, ...]:
    return (Rule(f'{name}.scale', 'head.fc.temperature', 'scalar'),
            Rule(f'{name}.{{x}}', 'head.fc.{x}'))


#: Detectors: stock mmdet names, but for the misspelt temperature and s_.
_DETECTOR = (
    Rule('roi_head.mask_head.conv_logits.tempearture',
         'roi_head.mask_head.conv_logits.temperature'),
    Rule('roi_head.bbox_head.fc_cls.s_', 'roi_head.bbox_head.fc_cls.scale'),
    Rule('roi_head.bbox_head.{i}.fc_cls.s_',
         'roi_head.bbox_head.{i}.fc_cls.scale'),
    *_same('neck.{path}', 'rpn_head.{path}', 'roi_head.{path}'),
)
#: Any other mm model: what is beside the backbone keeps its name.
_ANYTHING = (*_DETECTOR, Rule('{path}', '{path}'))

_OURS = (
    *_RESNET_D,
    *_same('act1.{x}', f'{_B}act{{j}}.{{x}}', f'{_B}attention.{{path}}',
           '{path}'),
)

_MMPRETRAIN_SE = (
    Rule(f'{_B}se_layer.conv1.conv.{{x}}', f'{_B}attention.fc1.{{x}}',
         'linear'),
    Rule(f'{_B}se_layer.conv2.conv.{{x}}', f'{_B}attention.fc2.{{x}}',
         'linear'),
)

_ENTRIES = (
    Table(
        'authors-cifar',
        "the authors' CIFAR classification code",
        _AUTHORS_CIFAR,
        _classifier('linear'),
        marks=('unirect.kappa_param', f'{_B}se.unact.kappa_param',
               f'{_B}cb.SpatialGate.spatial.conv.weight', 'linear.weight'),
        prefixed=False,
        unit_clamp='shifted',
        backbone_type='apa_mm.APAResNetCIFAR'),
    Table(
        'authors-detection',
        "the authors' detection code",
        _AUTHORS,
        _DETECTOR,
        marks=_AUTHORS_MARKS,
        prefixed=True),
    Table(
        'authors-spatial',
        "the authors' classification code (spatial attention)",
        (*_RESNET, *_apa('relu', 'act1'), *_AUTHORS_UNITS,
         *_spatial('cbam', f'{_B}attention')),
        _classifier('fc'),
        marks=(f'{_B}cbam.SpatialGate.spatial.conv.weight', ),
        foreign=(_CBAM_CHANNEL, ),
        prefixed=False,
        unit_clamp='shifted'),
    Table(
        'cbam',
        'the original CBAM code',
        (*_RESNET, *_cbam('cbam')),
        _classifier('fc'),
        marks=(_CBAM_CHANNEL, ),
        foreign=(f'{_B}cbam.ChannelGate.norm.weight', 'relu.kappa_param'),
        prefixed=False),
    Table(
        'authors-classification',
        "the authors' classification code",
        _AUTHORS,
        _classifier('fc'),
        marks=_AUTHORS_MARKS,
        prefixed=False,
        unit_clamp='shifted'),
    Table(
        'ultralytics',
        "Ultralytics' AGLU modules",
        (),
        _same('{path}'),
        marks=('model.{i}.{path}.kappa', '{i}.{path}.kappa'),
        prefixed=False),
    Table(
        'apa_mm',
        'apa_mm',
        _OURS,
        _ANYTHING,
        marks=('act1.kappa', f'{_B}act{{j}}.kappa',
               f'{_B}attention.{{path}}', '{path}.kappa')),
    Table(
        'mmpretrain-d',
        "MMPretrain's ResNetV1d",
        (
            *_BLOCKS_D,
            *_MMPRETRAIN_SE,
            Rule('stem.0.conv.weight', 'conv1.0.weight'),
            Rule('stem.0.bn.{x}', 'conv1.1.{x}'),
            Rule('stem.1.conv.weight', 'conv1.3.weight'),
            Rule('stem.1.bn.{x}', 'conv1.4.{x}'),
            Rule('stem.2.conv.weight', 'conv1.6.weight'),
            Rule('stem.2.bn.{x}', 'bn1.{x}'),
        ),
        _same('head.fc.{x}'),
        marks=('stem.0.conv.weight', ),
        prefixed=True),
    Table(
        'mmpretrain',
        'MMPretrain',
        (*_RESNET, *_MMPRETRAIN_SE),
        _same('head.fc.{x}'),
        marks=(f'{_B}se_layer.conv1.conv.weight', 'head.fc.weight'),
        prefixed=True),
    Table(
        'mmdet-d',
        "MMDetection's ResNetV1d",
        (
            *_BLOCKS_D,
            Rule('stem.0.weight', 'conv1.0.weight'),
            Rule('stem.1.{x}', 'conv1.1.{x}'),
            Rule('stem.3.weight', 'conv1.3.weight'),
            Rule('stem.4.{x}', 'conv1.4.{x}'),
            Rule('stem.6.weight', 'conv1.6.weight'),
            Rule('stem.7.{x}', 'bn1.{x}'),
        ),
        _ANYTHING,
        marks=('stem.0.weight', ),
        prefixed=True),
    Table(
        'mmdet',
        'MMDetection',
        _RESNET,
        _ANYTHING,
        marks=('conv1.weight', ),
        prefixed=True),
    Table(
        'timm-legacy',
        "timm's legacy SE-ResNet and its ancestors",
        (
            *_BLOCKS,
            Rule('layer0.conv1.weight', 'conv1.weight'),
            Rule('layer0.bn1.{x}', 'bn1.{x}'),
            Rule(f'{_B}se_module.fc1.{{x}}', f'{_B}attention.fc1.{{x}}',
                 'linear'),
            Rule(f'{_B}se_module.fc2.{{x}}', f'{_B}attention.fc2.{{x}}',
                 'linear'),
        ),
        _classifier('last_linear'),
        marks=('layer0.conv1.weight', ),
        prefixed=False,
        backbone_type='apa_mm.APAResNetLegacy'),
    Table(
        'timm',
        'timm',
        (
            *_RESNET_D,
            Rule(f'{_B}se.fc1.{{x}}', f'{_B}attention.fc1.{{x}}', 'linear'),
            Rule(f'{_B}se.fc2.{{x}}', f'{_B}attention.fc2.{{x}}', 'linear'),
            Rule(f'{_B}se.channel.fc1.{{x}}',
                 f'{_B}attention.channel.fc1.{{x}}', 'linear'),
            Rule(f'{_B}se.channel.fc2.{{x}}',
                 f'{_B}attention.channel.fc2.{{x}}', 'linear'),
            # timm stacks [mean, max], CBAM and we [max, mean].
            Rule(f'{_B}se.spatial.conv.conv.weight',
                 f'{_B}attention.spatial.conv.weight', 'swap'),
            Rule(f'{_B}se.spatial.conv.bn.{{x}}',
                 f'{_B}attention.spatial.bn.{{x}}'),
        ),
        _classifier('fc'),
        marks=(f'{_B}se.fc1.weight', f'{_B}se.channel.fc1.weight',
               'conv1.0.weight'),
        prefixed=False),
    Table(
        'torchvision',
        'torchvision',
        _RESNET,
        _classifier('fc'),
        marks=('conv1.weight', ),
        prefixed=False),
)
#: By name, in the order in which they are tried.
TABLES: Dict[str, Table] = {table.name: table for table in _ENTRIES}
