"""What a user should know about a converted file, in sentences."""
from typing import Dict, List, Mapping, Optional, Tuple

from torch import Tensor

from .architecture import Architecture
from .contents import Facts
from .recognition import Names
from .values import clamp_deviation

__all__ = ['class_order', 'notes_of', 'units_of']

ORDERS = ('native', 'frequency-rank', 'unknown')
#: Data sets whose labels the authors' code sorts by descending frequency.
RANKED = {
    'imagenetlt': 'ImageNet-LT',
    'placeslt': 'Places-LT',
    'inat18': 'iNaturalist 2018',
    'inat2018': 'iNaturalist 2018',
    'inaturalist18': 'iNaturalist 2018',
}
NATIVE = {
    'imagenet': 'ImageNet-1K',
    'imagenet1k': 'ImageNet-1K',
    'cifar10': 'CIFAR-10',
    'cifar100': 'CIFAR-100',
}
#: What the number of classes leaves open, without the file's own word.
GUESSES = {
    1000: 'ImageNet-1K (sorted synsets) or ImageNet-LT (frequency rank)',
    365: 'Places-LT (frequency rank) or Places365 (native order)',
    8142: 'iNaturalist 2018 (frequency rank in the authors\' code)',
}
_TIES = ('the rank of classes with equal counts depends on an unstable sort '
         'and cannot be restored from the file')


def class_order(source: Names, facts: Facts,
                num_classes: Optional[int]) -> Tuple[str, Optional[str]]:
    """Return the order of a classifier's rows, and a note about it."""
    if facts.meta.get('class_order') in ORDERS:  # converted here before
        return facts.meta['class_order'], None
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
    if key in NATIVE:
        return 'native', None
    if source.table.name == 'authors-cifar':
        return 'native', None
    return 'unknown', (
        f'the file does not say which data its {num_classes} classes are of: '
        f'{GUESSES.get(num_classes, "no data set of the paper")}; in '
        f'frequency-rank order row i is the i-th most frequent class ({_TIES})'
    )


def units_of(
        tensors: Mapping[str, Tensor]) -> Dict[str, Tuple[Tensor, Tensor]]:
    """Return kappa and lambda of the units (not the gates) by our names."""
    return {
        name[:-len('.kappa')]: (value, tensors[name[:-5] + 'lambd'])
        for name, value in tensors.items()
        if name.endswith('.kappa') and '.gate.' not in name
        and name[:-5] + 'lambd' in tensors
    }


def notes_of(source: Names, architecture: Optional[Architecture],
             head: Optional[str], facts: Facts, tensors: Mapping[str, Tensor],
             to: str) -> List[str]:
    """Collect the notes of a conversion."""
    notes: List[Optional[str]] = []
    if source.table.unit_clamp == 'shifted':
        notes.append(clamp_deviation(units_of(tensors)))
    if to == 'mmpretrain':
        weight = tensors.get('head.fc.weight')
        rows = None if weight is None or not weight.dim() else len(weight)
        notes.append(class_order(source, facts, rows)[1])
        notes += _head_notes(source, head, facts)
    if to == 'mmdet':
        notes += _detector_notes(source, tensors)
    if architecture is not None:
        notes += _network_notes(source, architecture)
    if source.table.name == 'ultralytics':
        notes.append(
            "its modules named AGLU are gates without the product by the "
            "input: build them as type='apa_mm.APA', not 'apa_mm.AGLU'")
    return [note for note in notes if note]


def _head_notes(source: Names, head: Optional[str],
                facts: Facts) -> List[str]:
    notes = []
    authors = source.table.name.startswith('authors-')
    if authors and head == 'cosine':
        notes.append('the scale of the cosine classifier is not in the file; '
                     "the authors' code has 16, the default of CosineClsHead")
    if authors and head == 'linear' and facts.head is None:
        notes.append("the file does not say whether the classifier is 'linear'"
                     " or the authors' 'inv', which has the same tensors; it "
                     'is taken for linear')
    if head == 'inv':
        notes.append("the authors' classifier 'inv' has no counterpart here; "
                     'its weights are stored under the names of a linear one')
    if facts.offset:
        notes.append(
            f'it was trained for a logit correction at test time (iif='
            f'{facts.offset!r}); set logit_offset in the head')
    return notes


def _detector_notes(source: Names, tensors: Mapping[str, Tensor]) -> List[str]:
    notes = []
    if any(name.endswith('fc_cls.g') for name in tensors):
        notes.append("its wrapped Cauchy classifier was trained in the "
                     "authors' form; build it with form='released'")
    if source.table.name != 'authors-detection':
        notes.append('only the backbone was checked tensor by tensor; name '
                     'the config with --config to check the rest')
    return notes


def _network_notes(source: Names, architecture: Architecture) -> List[str]:
    notes = []
    unsure = source.table.name.startswith(('mmdet', 'mmpretrain'))
    if unsure and architecture.bottleneck:
        notes.append("names do not tell where the stride is: if the source's "
                     "config says style='caffe', set it in the backbone too")
    if source.table.name == 'cbam' or (
            source.table.name == 'timm' and architecture.attention is not None
            and architecture.attention.kind == 'cbam'):
        notes.append('CBAM without the LayerNorm of the paper: attention_cfg '
                     'has norm_cfg=None')
    return notes
