"""What a user should know about a converted file, in sentences."""
from typing import Iterator, Mapping, Optional, Tuple

from torch import Tensor

from .architecture import Architecture
from .contents import Facts
from .recognition import Names
from .values import clamp_deviation

#: Data sets by the authors' names; their code sorts the labels of the first
#: by descending frequency.
RANKED = dict(imagenetlt='ImageNet-LT', placeslt='Places-LT',
              inat18='iNaturalist 2018', inat2018='iNaturalist 2018',
              inaturalist18='iNaturalist 2018')
NATIVE = ('imagenet', 'imagenet1k', 'cifar10', 'cifar100')
#: What the number of classes leaves open, without the file's own word.
GUESSES = {
    1000: 'ImageNet-1K (sorted synsets) or ImageNet-LT (frequency rank)',
    365: 'Places-LT (frequency rank) or Places365 (native order)',
    8142: "iNaturalist 2018 (frequency rank in the authors' code)"}
_TIES = ('the rank of classes with equal counts depends on an unstable sort '
         'and cannot be restored from the file')


def num_rows(tensors: Mapping[str, Tensor]) -> Optional[int]:
    """Return the outputs of a classifier under our names, if there is one."""
    weight = tensors.get('head.fc.weight')
    return None if weight is None or not weight.dim() else len(weight)


def class_order(source: Names, facts: Facts,
                num_classes: Optional[int]) -> Tuple[str, Optional[str]]:
    """Return 'native', 'frequency-rank' or 'unknown' order, and a note."""
    stored = facts.meta.get('class_order')  # converted here before
    if stored in ('native', 'frequency-rank', 'unknown'):
        return stored, None
    if facts.classes is not None:
        return 'native', None
    if num_classes is None or not source.table.name.startswith('authors-c'):
        return 'unknown', None
    key = ''.join(c for c in (facts.dataset or '').lower() if c.isalnum())
    if key in RANKED:
        return 'frequency-rank', (
            f'row i of the classifier is the i-th most frequent class of '
            f'{RANKED[key]}, not label i; evaluate in frequency-rank order '
            f'({_TIES})')
    if key in NATIVE or source.table.name == 'authors-cifar':
        return 'native', None
    guess = GUESSES.get(num_classes, 'no data set of the paper')
    return 'unknown', (
        f'the file does not say which data its {num_classes} classes are of: '
        f'{guess}; in frequency-rank order row i is the i-th most frequent '
        f'class ({_TIES})')


def notes_of(source: Names, architecture: Optional[Architecture],
             head: Optional[str], facts: Facts, tensors: Mapping[str, Tensor],
             to: str) -> Iterator[str]:
    """Yield the notes of a conversion."""
    name = source.table.name
    if source.table.unit_clamp == 'shifted':
        yield from clamp_deviation(tensors)
    if to == 'mmpretrain':
        order = class_order(source, facts, num_rows(tensors))[1]
        if order:
            yield order
        yield from _classifier_notes(source, head, facts)
    if to == 'mmdet' and any(n.endswith('fc_cls.g') for n in tensors):
        yield ("its wrapped Cauchy classifier was trained in the authors' "
               "form; build it with form='released'")
    if to == 'mmdet' and name != 'authors-detection':
        yield ('only the backbone was checked tensor by tensor; name the '
               'config with --config to check the rest')
    if architecture is not None:
        if architecture.bottleneck and name.startswith(
            ('mmdet', 'mmpretrain')):
            yield ("names do not tell where the stride is: if the source's "
                   "config says style='caffe', set it in the backbone too")
        attention = architecture.attention
        if (name in ('cbam', 'timm') and attention is not None
                and attention.kind == 'cbam'):
            yield ('CBAM without the LayerNorm of the paper: attention_cfg '
                   'has norm_cfg=None')
    if name == 'ultralytics':
        yield ('its modules named AGLU are gates without the product by the '
               "input: build them as type='apa_mm.APA', not 'apa_mm.AGLU'")


def _classifier_notes(source: Names, head: Optional[str], facts: Facts
                      ) -> Iterator[str]:
    authors = source.table.name.startswith('authors-')
    if authors and head == 'cosine':
        yield ('the scale of the cosine classifier is not in the file; the '
               "authors' code has 16, the default of CosineClsHead")
    if authors and head == 'linear' and facts.head is None:
        yield ("the file does not say whether the classifier is 'linear' or "
               "the authors' 'inv', which has the same tensors; it is taken "
               'for linear')
    if head == 'inv':
        yield ("the authors' classifier 'inv' has no counterpart here; its "
               'weights are stored under the names of a linear one')
    if facts.offset:
        yield ('it was trained for a logit correction at test time (iif='
               f'{facts.offset!r}); set logit_offset in the head')
