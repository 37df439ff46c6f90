"""Drawing every class equally often."""
from typing import Iterator, Optional, Sized, Union

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch import Tensor
from torch.utils.data import Sampler

from apa_mm.evaluation.class_counts import dataset_labels
from apa_mm.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class ClassBalancedSampler(Sampler):
    """Draw the same number of samples of every class in each epoch.

    This is the sampling of the second stage of decoupled training (cRT).
    With L samples per epoch and C classes that have samples, every class
    gets L // C of them and the rest goes to classes drawn at random. Within a
    class the samples are shuffled anew each time all have been drawn, so that
    within an epoch none is drawn twice before all are drawn once.

    Args:
        dataset (Sized): The data set; must offer ``get_gt_labels()`` or
            ``get_cat_ids(index)``.
        epoch_size (str | int): L: 'dataset' for the size of the data set,
            'largest' or 'smallest' for C times the largest or smallest class
            (up- and downsampling), or a number.
        seed (int, optional): Seed, the same on every rank; drawn and shared
            by default.

    Raises:
        TypeError: If the data set does not tell its labels.
        ValueError: If ``epoch_size`` is something else.

    Example:
        >>> class Data(list):
        ...     def get_gt_labels(self):
        ...         return [0, 0, 0, 1]
        >>> data = Data('abcd')
        >>> sorted(data[i] for i in ClassBalancedSampler(data))[-2:]
        ['d', 'd']
    """

    def __init__(self, dataset: Sized, epoch_size: Union[str, int] = 'dataset',
                 seed: Optional[int] = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        labels = torch.from_numpy(dataset_labels(dataset))
        _, sizes = labels.unique(return_counts=True)
        # Indices class by class; a stable sort keeps them in order.
        self.members = labels.argsort(stable=True).split(sizes.tolist())
        self.total_size = self._total_size(epoch_size, sizes)

    def _total_size(self, epoch_size: Union[str, int], sizes: Tensor) -> int:
        """Return L, rounded up to a multiple of the number of ranks."""
        named = dict(dataset=sizes.sum(), largest=len(sizes) * sizes.max(),
                     smallest=len(sizes) * sizes.min())
        size = named.get(epoch_size, epoch_size)
        if isinstance(size, str) or size < 1:
            raise ValueError(f'epoch_size must be one of {tuple(named)} or a '
                             f'positive number, but got {epoch_size!r}')
        return -(-int(size) // self.world_size) * self.world_size

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of this rank."""
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        num_classes = len(self.members)
        quotas = torch.full((num_classes, ), self.total_size // num_classes)
        lucky = torch.randperm(num_classes, generator=generator)
        quotas[lucky[:self.total_size % num_classes]] += 1
        drawn = torch.cat([_draw(members, quota, generator) for members, quota
                           in zip(self.members, quotas.tolist(), strict=True)])
        drawn = drawn[torch.randperm(len(drawn), generator=generator)]
        return iter(drawn[self.rank::self.world_size].tolist())

    def __len__(self) -> int:
        """Return the number of samples of this rank."""
        return self.total_size // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration draw other samples."""
        self.epoch = epoch


def _draw(members: Tensor, quota: int, generator: torch.Generator) -> Tensor:
    """Return ``quota`` members, all of them before any comes again."""
    rounds = [members[torch.randperm(len(members), generator=generator)]
              for _ in range(-(-quota // len(members)))]
    return torch.cat([members[:0], *rounds])[:quota]
