"""Give the image frequencies of the training set to whoever asks."""
from typing import List, Optional, Tuple

import numpy as np
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from apa_mm.registry import HOOKS

from ..class_frequency import (ClassFrequency, class_frequency,
                               class_frequency_from_file, plain_datasets)

__all__ = ['ClassFrequencyHook']

# How many class names a message lists.
NAMES_SHOWN = 5


@HOOKS.register_module()
class ClassFrequencyHook(Hook):
    """Count the training images of every class before training.

    Every module of the model that has ``set_class_frequency(counts,
    num_images)``, such as :class:`apa_mm.losses.GOLLoss`, gets them; see
    :func:`apa_mm.engine.class_frequency.class_frequency` for what is counted.
    Annotations are read once per process, from the index that the dataset
    has made anyway. This happens after a checkpoint was loaded or resumed, so
    that the frequencies are those of the set that is trained on. Ranks read
    the same files and need not talk.

    Args:
        ann_file (str, optional): Count a COCO- or LVIS-style file instead of
            the training dataset, for datasets that cannot tell, or to
            train on a part of a set with the frequencies of the whole.
        allow_empty (bool): Accept classes without any training image.

    Example:
        >>> hook = ClassFrequencyHook(allow_empty=True)
        >>> hook.allow_empty
        True
    """

    def __init__(self,
                 ann_file: Optional[str] = None,
                 allow_empty: bool = False) -> None:
        self.ann_file = ann_file
        self.allow_empty = allow_empty

    def before_train(self, runner: Runner) -> None:
        """Count, check and hand out.

        Args:
            runner (Runner): The runner that trains.

        Raises:
            TypeError: If the dataset cannot tell the classes of its images.
            ValueError: If a class has no image, or the numbers of classes of
                dataset and model differ.
        """
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        users = [(name, module) for name, module in model.named_modules()
                 if callable(getattr(module, 'set_class_frequency', None))]
        if not users:
            runner.logger.info('ClassFrequencyHook: no module of the model '
                               'asks for class frequencies')
            return
        found = self._count(runner.train_dataloader.dataset)
        self._check_empty(found)
        _check_num_classes(found, users)
        for _, module in users:
            module.set_class_frequency(found.counts, found.num_images)
        runner.logger.info(
            f'class frequencies of {len(found.counts)} classes in '
            f'{found.num_images} images ({found.counts.min()} to '
            f'{found.counts.max()} images per class) from {found.source} for '
            + ', '.join(name or 'the model' for name, _ in users))

    def _count(self, dataset: object) -> ClassFrequency:
        if self.ann_file is None:
            return class_frequency(dataset)
        first = next(plain_datasets(dataset))
        metainfo = getattr(first, 'metainfo', None) or {}
        return class_frequency_from_file(
            self.ann_file,
            metainfo.get('classes'),
            backend_args=getattr(first, 'backend_args', None))

    def _check_empty(self, found: ClassFrequency) -> None:
        empty = np.flatnonzero(found.counts == 0)
        if len(empty) == 0 or self.allow_empty:
            return
        names = ', '.join(str(found.classes[i]) for i in empty[:NAMES_SHOWN])
        more = ', ...' if len(empty) > NAMES_SHOWN else ''
        raise ValueError(
            f'{len(empty)} of {len(found.counts)} classes have no training '
            f'image in {found.source}: {names}{more}; remove them from the '
            "dataset's classes, or set allow_empty=True in "
            "dict(type='apa_mm.ClassFrequencyHook')")


def _check_num_classes(found: ClassFrequency,
                       users: List[Tuple[str, nn.Module]]) -> None:
    for name, module in users:
        size = getattr(module, 'num_classes', len(found.counts))
        if size != len(found.counts):
            raise ValueError(
                f'{found.source} has {len(found.counts)} classes, but '
                f'{name or "the model"} ({type(module).__name__}) has '
                f'num_classes={size}; set num_classes={len(found.counts)} in '
                'the model, heads and losses alike')
