"""Give the image frequencies of the training set to whoever asks."""
from typing import List, Optional, Sequence, Tuple

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from apa_mm.data.class_frequency import (
    ClassFrequency, class_frequency, class_frequency_from_file, plain_datasets)
from apa_mm.preflight.job import InputError
from apa_mm.registry import DATASETS, HOOKS
from apa_mm.utils.tables import show
from apa_mm.weights.load_check import unwrap


@HOOKS.register_module()
class ClassFrequencyHook(Hook):
    """Count the training images of every class before training.

    Every module of the model that has ``set_class_frequency(counts,
    num_images)``, such as :class:`apa_mm.losses.GOLLoss`, gets them, after a
    checkpoint was loaded or resumed; see
    :func:`apa_mm.data.class_frequency.class_frequency` for what is counted.

    A head that corrects its predictions for the counts, such as
    :class:`apa_mm.CosineClsHead` with ``logit_offset``, and does not find
    them in the checkpoint it is tested with, gets the first of ``ann_file``,
    the ``train_class_counts`` of the tested dataset, and the training dataset
    of the config.

    Args:
        ann_file (str, optional): Count a COCO- or LVIS-style file instead of
            the training dataset.
        allow_empty (bool): Accept classes without any training image.
    """

    gives_class_counts = True

    def __init__(self, ann_file: Optional[str] = None,
                 allow_empty: bool = False) -> None:
        self.ann_file = ann_file
        self.allow_empty = allow_empty

    def before_train(self, runner: Runner) -> None:
        """Count, check and hand out.

        Raises:
            TypeError: If the dataset cannot tell the classes of its images.
            ValueError: If a class has no image, or the model other classes.
        """
        users = _users(runner.model)
        if not users:
            runner.logger.info('ClassFrequencyHook: no module of the model '
                               'asks for class frequencies')
            return
        found = self._count(runner.train_dataloader.dataset)
        total = len(found.counts)
        for name, module in users:
            size = getattr(module, 'num_classes', total)
            if size != total:
                raise ValueError(
                    f'{found.source} has {total} classes, but '
                    f'{name or "the model"} ({type(module).__name__}) has '
                    f'num_classes={size}; set num_classes={total} in the '
                    'model, heads and losses alike')
        for _, module in users:
            module.set_class_frequency(found.counts, found.num_images)
        runner.logger.info(
            f'class frequencies of {total} classes in {found.num_images} '
            f'images ({found.counts.min()} to {found.counts.max()} images per '
            f'class) from {found.source} for '
            + ', '.join(name or 'the model' for name, _ in users))

    def before_val(self, runner: Runner) -> None:
        """Make sure that predictions can be corrected, see before_test."""
        self._before_predictions(runner, runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        """Make sure that predictions can be corrected.

        Raises:
            InputError: If the counts are nowhere to be found.
            ValueError: If the checkpoint has those of the tested dataset in
                another order of classes.
        """
        self._before_predictions(runner, runner.test_dataloader.dataset)

    def _before_predictions(self, runner: Runner, dataset: object) -> None:
        heads = [(name, module) for name, module in _users(runner.model)
                 if getattr(module, 'predicts_with_class_counts', False)]
        if not heads:
            return
        metainfo = getattr(next(plain_datasets(dataset)), 'metainfo', {})
        known = metainfo.get('train_class_counts')
        for name, head in heads:
            if not head.has_class_counts:
                counts = self._counts_for_test(runner, known, name)
                head.set_class_frequency(counts, sum(counts))
            elif known is not None:
                head.refuse_other_order(known)

    def _counts_for_test(self, runner: Runner, known: Optional[Sequence[int]],
                         name: str) -> List[int]:
        """Return training images per class for a head without them."""
        source = "the tested dataset's train_class_counts"
        cfg = (runner.cfg.get('train_dataloader') or {}).get('dataset')
        if known is None and self.ann_file is None and cfg is None:
            raise InputError(
                f'{name} corrects its predictions for the training images per '
                'class, but neither the checkpoint nor the tested dataset nor '
                'the config tells them; set train_dataloader, test on a '
                'dataset with train_ann_file, or set logit_offset=None')
        if known is None or self.ann_file is not None:
            found = self._count(DATASETS.build(cfg) if cfg else None)
            known, source = found.counts.tolist(), found.source
        runner.logger.info(f'the checkpoint has no class counts for {name}; '
                           f'they are taken from {source}')
        return list(known)

    def _count(self, dataset: object) -> ClassFrequency:
        if self.ann_file is None:
            found = class_frequency(dataset)
        else:
            first = None if dataset is None else next(plain_datasets(dataset))
            metainfo = getattr(first, 'metainfo', None) or {}
            found = class_frequency_from_file(
                self.ann_file, metainfo.get('classes'),
                backend_args=getattr(first, 'backend_args', None))
        empty = np.flatnonzero(found.counts == 0)
        if len(empty) and not self.allow_empty:
            names = show((found.classes[i] for i in empty), 5)
            raise ValueError(
                f'{len(empty)} of {len(found.counts)} classes have no '
                f'training image in {found.source}: {names}; remove them, or '
                'set allow_empty=True in apa_mm.ClassFrequencyHook')
        return found


def _users(model: nn.Module) -> List[Tuple[str, nn.Module]]:
    """Return the modules that ask for class frequencies, with names."""
    return [(name, module) for name, module in unwrap(model).named_modules()
            if callable(getattr(module, 'set_class_frequency', None))]
