"""Training images per class, as part of a module's state."""
import logging
from typing import Any, Dict, Sequence, Union

import torch
from mmengine.logging import print_log
from torch import Tensor

__all__ = ['ClassCounts']


class ClassCounts:
    """Mixin of an ``nn.Module`` that needs the training set's class counts.

    The counts are a persistent buffer, ``class_counts``, integers (C,), so a
    checkpoint carries them and a test run needs no training set. They come
    from :meth:`set_class_frequency`, which ``apa_mm.ClassFrequencyHook``
    calls before training.

    Example:
        >>> from torch import nn
        >>> class Head(ClassCounts, nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.init_class_counts(3)
        >>> head = Head()
        >>> head.set_class_frequency([5, 3, 2], num_images=10)
        >>> head.state_dict()['class_counts']
        tensor([5, 3, 2])
    """

    #: Whether a class without training images is an error.
    every_class_needs_images: bool = True

    def init_class_counts(self, num_classes: int) -> None:
        """Register the buffer; call it in ``__init__``.

        Args:
            num_classes (int): C, at least 2.

        Raises:
            ValueError: If ``num_classes`` is less than 2.
        """
        if not isinstance(num_classes, int) or num_classes < 2:
            raise ValueError(f'num_classes must be an integer of at least 2, '
                             f'but got {num_classes!r}')
        counts = torch.zeros(num_classes, dtype=torch.int64)
        self.register_buffer('class_counts', counts)
        self.has_class_counts = False

    def set_class_frequency(self, counts: Union[Tensor, Sequence[int]],
                            num_images: int) -> None:
        """Take the class counts of the training set.

        Args:
            counts (Tensor | Sequence[int]): Images per class (C,), in the
                order of the labels.
            num_images (int): Images in the training set. An image has one
                label, so this is the sum of the counts.

        Raises:
            ValueError: If the number of classes or of images does not fit, a
                class has no images, or a checkpoint brought the same counts
                in another order of classes.
        """
        counts = torch.as_tensor(counts).to(torch.int64).cpu()
        name = type(self).__name__
        if counts.shape != self.class_counts.shape:
            raise ValueError(
                f'{name} has num_classes={len(self.class_counts)}, but the '
                f'training set has {counts.numel()} classes; set num_classes '
                'in the head and in its loss to the number of classes')
        if counts.sum() != num_images:
            raise ValueError(
                f'{name} needs one label per image, but the class counts sum '
                f'to {counts.sum()} and the training set has {num_images} '
                'images; use a single-label data set')
        empty = (counts < 1).nonzero().flatten().tolist()
        if empty and self.every_class_needs_images:
            raise ValueError(
                f'{name} needs at least one training image of every class, '
                f'but {len(empty)} of {len(counts)} have none (classes '
                f'{empty[:5]}); remove them from the label set or complete '
                'the list of images')
        self._compare(counts)
        self.class_counts.copy_(counts)
        self.has_class_counts = True

    def _compare(self, counts: Tensor) -> None:
        """Refuse the same counts in another order; note other counts."""
        if not self.has_class_counts or torch.equal(self.class_counts.cpu(),
                                                    counts):
            return
        self.refuse_other_order(counts)
        print_log(
            f'{type(self).__name__}: the class counts of the checkpoint are '
            'replaced by those of another training set: '
            f'{self._difference(counts)}',
            logger='current',
            level=logging.WARNING)

    def _difference(self, counts: Tensor) -> str:
        old = self.class_counts.cpu()
        differing = (old != counts).nonzero().flatten().tolist()
        first = differing[0]
        return (f'{len(differing)} of {len(counts)} classes differ, class '
                f'{first} had {old[first]} images and now has '
                f'{counts[first]}')

    def refuse_other_order(self, counts: Union[Tensor,
                                               Sequence[int]]) -> None:
        """Compare the counts that a checkpoint brought with those of the data.

        Args:
            counts (Tensor | Sequence[int]): Training images per class (C,),
                in the order of the labels.

        Raises:
            ValueError: If they are the same counts in another order.
        """
        counts = torch.as_tensor(counts).to(torch.int64).cpu()
        old = self.class_counts.cpu()
        if torch.equal(old, counts) or not torch.equal(
                old.sort().values,
                counts.sort().values):
            return
        raise ValueError(
            f'{type(self).__name__} was loaded with the class counts of '
            'this training set in another class order: '
            f'{self._difference(counts)}; give the '
            'data set the label order of the checkpoint, or load only the '
            "backbone by init_cfg=dict(type='Pretrained', "
            "checkpoint=..., prefix='backbone.')")

    def require_class_counts(self) -> Tensor:
        """Return the counts (C,), or say how to get them.

        Raises:
            RuntimeError: If they were neither set nor loaded.
        """
        if not self.has_class_counts:
            raise RuntimeError(
                f'{type(self).__name__} needs the class counts of the '
                'training set, but was not given them; add '
                "custom_hooks=[dict(type='apa_mm.ClassFrequencyHook')] to "
                'the config, or load a checkpoint that holds class_counts')
        return self.class_counts

    def _load_from_state_dict(self, state_dict: Dict[str, Tensor], prefix: str,
                              *args: Any, **kwargs: Any) -> None:
        kept = 'class_counts' in self._buffers
        if kept:
            # Absent counts are no fault of a checkpoint: a converted one has
            # none, and whoever needs them asks by require_class_counts.
            state_dict.setdefault(prefix + 'class_counts', self.class_counts)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if kept:
            # Once per load, so that the forward pass need not look.
            self.has_class_counts = bool((self.class_counts > 0).any())
