"""Tell whether files, config and checkpoint number the classes alike."""
from typing import Any, List, Mapping, Optional, Sequence

#: A config line with more class names than these is of no help.
LINE_NAMES = 100
_LIST = ("python -c \"import json; print(*(c['name'] for c in json.load("
         "open('{}'))['categories']), sep='\\n')\" > classes.txt")

#: What a converted file calls the order of its classifier's rows -> what the
#: data sets here call it.
_CONVERTED = {'native': 'native', 'frequency-rank': 'frequency'}


def class_order_problem(meta: Mapping[str, Any],
                        metainfo: Mapping[str, Any]) -> Optional[str]:
    """Say what is wrong with a checkpoint's class order, and how to mend it.

    Only two findings count: the same names in another order than in the data
    set's ``metainfo``, and another ``label_order`` ('native', the default
    there, or 'frequency'). Other classes are what fine-tuning is for. The
    checkpoint's ``meta`` has ``dataset_meta`` (mmengine) or ``class_order``
    (a conversion).
    """
    saved = meta.get('dataset_meta') or {}
    if isinstance(saved, (list, tuple)):  # of mmdet's concatenation
        saved = saved[0]
    theirs, ours = (tuple(map(str, info.get('classes') or ()))
                    for info in (saved, metainfo))
    if theirs and ours and (theirs == ours or len(theirs) != len(ours)):
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


def label_order_problems(readers: Sequence[tuple],
                         across_files: bool = True) -> List[str]:
    """Compare the class orders of the files and of the config.

    Labels follow the order of a file's categories. Returns a sentence per
    difference from the first reader, or from a reader's own config; a class
    that only one side has is no difference.

    Args:
        readers (Sequence[tuple]): Of each reader of a file, the training
            set's first: its name, the path if it reads all classes of the
            file, the classes that the config gives it or None, the category
            names in the order of its labels, and the same by category id,
            empty where no metric could be told to sort.
        across_files (bool): False if the model reads the classes of each
            set as text, so that only each set itself must agree.
    """
    problems = []
    for where, path, classes, labels, by_id in readers:
        place = _difference(classes or (), labels)
        if place is not None:
            mend = f'metainfo=dict(classes={tuple(labels)})'
            if len(labels) > LINE_NAMES:
                every = f': {_LIST.format(path)}' if path else ''
                mend = ("metainfo=dict(classes='classes.txt') with the names "
                        f'in the order of the file, one a line{every}')
            problems.append(
                f'{where}: class {place} is {classes[place]!r} in the '
                "dataset's metainfo, but labels follow the file, where it is "
                f'{labels[place]!r}: names and numbers would not belong '
                f'together; set {mend}')
        first, _, _, trained, _ = readers[0]
        place = _difference(trained, labels) if across_files else None
        if place is not None:
            mend = f"write its 'categories' in the order of {first}"
            if list(by_id) == list(trained):
                mend = f'set sort_categories=True on its metric, or {mend}'
            problems.append(
                f'{where}: class {place} is {labels[place]!r} there and '
                f'{trained[place]!r} in {first}: labels follow the order of '
                'the categories, so that one class would be judged as the '
                f'other; {mend}')
    return problems


def _difference(names: Sequence[str], others: Sequence[str]) -> Optional[int]:
    """Return a place that both have, with a name that moved there."""
    if [*names] == [*others]:  # some may occur twice
        return None
    known = {name: index for index, name in enumerate(others)}
    return next((min(index, known[name]) for index, name in enumerate(names)
                 if known.get(name, index) != index), None)
