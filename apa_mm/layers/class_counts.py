"""Training images per class, as part of a module's state."""
import logging
from typing import Any, Dict, Sequence, Tuple, Union

import torch
from mmengine.logging import print_log
from torch import Tensor


class ClassCounts:
    """Mixin of an ``nn.Module`` that needs the training set's class counts.

    The counts are a persistent buffer, ``class_counts``, integers (C,), so a
    checkpoint carries them and a test run needs no training set. Before
    training ``apa_mm.ClassFrequencyHook`` calls :meth:`set_class_frequency`.
    Where an image may have several labels, the number of images and whether
    the counts are known are buffers too; a checkpoint gives all or none.
    """

    #: Whether an image has exactly one label.
    one_label_per_image: bool = True
    #: Whether a class without training images is an error.
    every_class_needs_images: bool = True
    #: Attributes that ``print(module)`` shows.
    shown: Tuple[str, ...] = ()

    def init_class_counts(self, num_classes: int) -> None:
        """Set ``num_classes`` and register the buffers.

        Raises:
            ValueError: If it is below 2, or below 1 where an image may have
                several labels or none.
        """
        least = 2 if self.one_label_per_image else 1
        if not isinstance(num_classes, int) or num_classes < least:
            raise ValueError(f'num_classes must be an integer of at least '
                             f'{least}, but got {num_classes!r}')
        self.num_classes = num_classes
        self.register_buffer('class_counts',
                             torch.zeros(num_classes, dtype=torch.int64))
        if not self.one_label_per_image:
            self.register_buffer('num_images', torch.tensor(0))
            self.register_buffer('has_frequency', torch.tensor(False))
        self._renew_counts('')

    def set_class_frequency(self, counts: Union[Tensor, Sequence[int]],
                            num_images: int) -> None:
        """Take the class counts of the training set.

        ``counts`` (C,) are the images of each class, in the order of the
        labels, and ``num_images`` those of the set; only annotated ones where
        an image may have several labels.

        Raises:
            ValueError: If the counts do not fit the module, or a checkpoint
                brought the same ones in another order of classes.
        """
        counts = torch.as_tensor(counts).to(torch.int64).cpu()
        if counts.shape != self.class_counts.shape:
            raise ValueError(
                f'{self._name()} has num_classes={len(self.class_counts)}, '
                f'but the training set has {counts.numel()} classes; set '
                'num_classes in the head and in its loss to that')
        if self.one_label_per_image:
            self._check_single_labels(counts, num_images)
        else:
            self._check_image_counts(counts, num_images)
        if self.has_class_counts and self._source != 'hook' and not \
                torch.equal(self.class_counts.cpu(), counts):
            self.refuse_other_order(counts)
            print_log(
                f'{self._name()}: the class counts of the checkpoint are '
                'replaced by those of another training set: '
                f'{self._difference(counts)}',
                logger='current', level=logging.WARNING)
        self.class_counts.copy_(counts)
        if not self.one_label_per_image:
            self.num_images.fill_(num_images)
            self.has_frequency.fill_(True)
        self._renew_counts('hook')

    def _check_single_labels(self, counts: Tensor, num_images: int) -> None:
        if counts.sum() != num_images:
            raise ValueError(
                f'{self._name()} needs one label per image, but the class '
                f'counts sum to {counts.sum()} and the training set has '
                f'{num_images} images; use a single-label data set')
        empty = (counts < 1).nonzero().flatten().tolist()
        if empty and self.every_class_needs_images:
            raise ValueError(
                f'{self._name()} needs at least one training image of every '
                f'class, but {len(empty)} of {len(counts)} have none (classes '
                f'{empty[:5]}); remove them or complete the list of images')

    def _check_image_counts(self, counts: Tensor, num_images: int) -> None:
        if num_images < 1:
            raise ValueError('num_images must be positive, but got '
                             f'{num_images}; count the annotated images')
        low, high = counts.min().item(), counts.max().item()
        if low < 0 or high > num_images:
            raise ValueError(
                f'counts must be numbers of images in [0, num_images='
                f'{num_images}], but they range from {low} to {high}; count '
                'every image once per class, not every instance')

    def _difference(self, counts: Tensor) -> str:
        old = self.class_counts.cpu()
        differing = (old != counts).nonzero().flatten().tolist()
        first = differing[0]
        return (f'{len(differing)} of {len(counts)} classes differ, class '
                f'{first} had {old[first]} images and now has {counts[first]}')

    def refuse_other_order(self, counts: Union[Tensor, Sequence[int]]) -> None:
        """Raise ValueError for the checkpoint's counts in another order."""
        counts = torch.as_tensor(counts).to(torch.int64).cpu()
        old = self.class_counts.cpu()
        if not torch.equal(old, counts) and torch.equal(
                old.sort().values, counts.sort().values):
            raise ValueError(
                f'{self._name()} was loaded with the class counts of this '
                'training set in another class order: '
                f'{self._difference(counts)}; give the data set the label '
                'order of the checkpoint, or load only the backbone by '
                "init_cfg=dict(type='Pretrained', checkpoint=..., "
                "prefix='backbone.')")

    def require_class_counts(self) -> Tensor:
        """Return the counts (C,); RuntimeError without any.

        In training, counts that a checkpoint brought are announced once.
        """
        if not self.has_class_counts:
            raise RuntimeError(
                f'{self._name()} needs the class counts of the training set, '
                f'but was not given them{self._other_size}; add '
                "custom_hooks=[dict(type='apa_mm.ClassFrequencyHook')] to "
                'the config, or load a checkpoint that holds class_counts')
        if self.training and self._source == 'checkpoint':
            self._source = 'announced'
            print_log(
                f'{self._name()} trains with the class counts of the '
                'checkpoint; for those of the training set add dict(type='
                "'apa_mm.ClassFrequencyHook') to custom_hooks",
                logger='current')
        return self.class_counts

    def extra_repr(self) -> str:
        """Return the settings for ``print(module)``."""
        return ', '.join(f'{n}={getattr(self, n)!r}' for n in self.shown)

    def _name(self) -> str:
        return type(self).__name__

    def _renew_counts(self, source: str) -> None:
        """Keep what the buffers say: to look there waits for the device."""
        counts = self.class_counts
        flag = (counts > 0).any() if self.one_label_per_image \
            else self.has_frequency
        self.has_class_counts = not counts.is_meta and bool(flag)
        self._source = source
        self._other_size = ''

    def _load_from_state_dict(self, state_dict: Dict[str, Tensor], prefix: str,
                              *args: Any, **kwargs: Any) -> None:
        if 'class_counts' not in self._buffers:
            super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
            return
        names = ['class_counts'] if self.one_label_per_image else [
            'class_counts', 'num_images', 'has_frequency']
        own = {prefix + name: getattr(self, name) for name in names}
        loaded = own.keys() & state_dict.keys()
        counts = state_dict.get(prefix + 'class_counts', self.class_counts)
        fits = counts.shape == self.class_counts.shape
        whole = fits and len(loaded) == len(own)
        if not whole:
            # A checkpoint without counts is no fault: whoever needs them asks
            # by require_class_counts. If it has some, PyTorch reports which
            # are missing or do not fit.
            state_dict.update({
                key: value for key, value in own.items() if not loaded or
                key in loaded and state_dict[key].shape == value.shape})
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._renew_counts('checkpoint' if whole else self._source)
        if not fits:
            self._other_size = (f' (the checkpoint has those of {len(counts)} '
                                f'classes, not of {len(self.class_counts)})')
