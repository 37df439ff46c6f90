"""Tell whether a checkpoint and a data set number the classes alike."""
from typing import Any, Mapping, Optional

__all__ = ['class_order_problem']

#: How a converted file names the order of its classifier's rows, and what the
#: data sets here call it. Without a word in the file nothing is known.
_CONVERTED = {'native': 'native', 'frequency-rank': 'frequency'}


def class_order_problem(meta: Mapping[str, Any],
                        metainfo: Mapping[str, Any]) -> Optional[str]:
    """Compare the class order of a checkpoint with that of a data set.

    Only two findings count: the same class names in another order, and a
    ``label_order`` ('native' or 'frequency') that differs. Other classes, or
    another number of them, are what fine-tuning is for.

    Args:
        meta (Mapping): ``meta`` of the checkpoint; mmengine keeps the meta
            information of the training set there as ``dataset_meta``, a
            conversion the row order as ``class_order``.
        metainfo (Mapping): Meta information of the data set. One that has no
            ``label_order`` counts its classes in native order.

    Returns:
        str | None: What is wrong and how to mend it; None if all is well or
        nothing is known.

    Example:
        >>> class_order_problem(
        ...     dict(class_order='native'), dict(label_order='native'))
        >>> trained = dict(dataset_meta=dict(classes=('cat', 'dog')))
        >>> 'another order' in class_order_problem(
        ...     trained, dict(classes=('dog', 'cat')))
        True
    """
    saved = meta.get('dataset_meta') or {}
    theirs, ours = _classes(saved), _classes(metainfo)
    if theirs is not None and theirs == ours:
        return None
    if theirs and ours and len(theirs) != len(ours):
        return None
    their_order = saved.get('label_order') or _CONVERTED.get(
        meta.get('class_order'))
    our_order = metainfo.get('label_order', 'native')
    permuted = bool(theirs and ours) and sorted(theirs) == sorted(ours)
    if not permuted and their_order in (None, our_order):
        return None
    found = (f"label_order is {their_order or 'unknown'!r} in the checkpoint "
             f'and {our_order!r} in the data set')
    if permuted:
        first = next(i for i in range(len(ours)) if ours[i] != theirs[i])
        found = (f'class {first} is {theirs[first]!r} in the checkpoint and '
                 f'{ours[first]!r} in the data set; {found}')
    mend = 'give the data sets the class order of the checkpoint'
    if their_order is not None and their_order != our_order:
        mend = f'set label_order={their_order!r} on every data set'
    return ('the classifier of the checkpoint has its classes in another '
            f'order than the data set: {found}; {mend}, or name a checkpoint '
            'with this order')


def _classes(metainfo: Mapping[str, Any]) -> Optional[tuple]:
    classes = metainfo.get('classes')
    return None if classes is None else tuple(map(str, classes))
