"""Give a network of ours the names of another code again."""
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from torch import Tensor

from apa_mm.weights.errors import require

from .contents import Facts
from .convert import Conversion
from .recognition import BACKBONE, Names, recognise, translate
from .report import LoadReport
from .tables import TABLES


def convert_back(tensors: Mapping[str, Tensor], source: str,
                 added: Sequence[str] = (), head: Optional[str] = None
                 ) -> Tuple[Dict[str, Tensor], List[str]]:
    """Give our tensors the names and shapes of a source again.

    Those ``added`` by :func:`convert` stay out, ``source`` names the key
    table, and ``head`` is 'norm' for the authors' transposed classifier.

    Returns:
        tuple[dict[str, Tensor], list[str]]: The source's state dict, and our
        names that it has no place for.

    Raises:
        CheckpointError: If there is no such table.

    Example:
        >>> import torch
        >>> convert_back({'head.fc.weight': torch.ones(2, 3)}, 'torchvision')
        ({'fc.weight': tensor([[1., 1., 1.],
                [1., 1., 1.]])}, [])
    """
    require(source in TABLES, f'there is no key table {source!r}; expected '
            f'one of {", ".join(TABLES)}')
    table = TABLES[source]
    names = Names(table, table.prefixed is not False)
    bare = not any(n.startswith((BACKBONE, 'head.', 'neck.')) for n in tensors)
    result: Dict[str, Tensor] = {}
    left: List[str] = []
    for name, value in tensors.items():
        if name in added:
            continue
        if head == 'norm' and name == 'head.fc.weight':
            value = value.t()
        place = translate(BACKBONE * bare + name, value, names, back=True)
        if place is None:
            left.append(name)
        else:
            result[place[0]] = place[1]
    return result, left


def convert_to_authors(tensors: Mapping[str, Tensor],
                       facts: Facts = Facts()) -> Conversion:
    """Give a network of ours the names of the authors' code."""
    source = recognise(tensors)
    require(source.table.name == 'apa_mm', f'it is of {source.table.title}; '
            "only networks of apa_mm can be given the authors' names")
    table = facts.meta.get('table')
    if not str(table).startswith('authors-'):
        table = f'authors-{_task_of(tensors)}'
    result, left = convert_back(tensors, table, head=facts.meta.get('head'))
    kept = [name for name in tensors if name not in set(left)]
    report = LoadReport('apa_mm', table, unexpected=left,
                        mapped=dict(zip(kept, result, strict=True)))
    return Conversion(result, report, source, None, None)


def _task_of(tensors: Mapping[str, Tensor]) -> str:
    """Return which of the authors' codes has such a network."""
    if any(name.startswith('roi_head.') for name in tensors):
        return 'detection'
    stem = tensors.get('conv1.weight', tensors.get(f'{BACKBONE}conv1.weight'))
    if stem is not None and len(stem) == 16:
        return 'cifar'
    spatial = any('.attention.conv.' in name for name in tensors)
    return 'spatial' if spatial else 'classification'
