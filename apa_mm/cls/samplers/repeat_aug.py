"""Repeated augmentation with epochs of the authors' size."""
from typing import Any, Sized

from mmpretrain.datasets import RepeatAugSampler as _RepeatAugSampler

from apa_mm.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class RepeatAugSampler(_RepeatAugSampler):
    """MMPretrain's; of 256 images or more, an epoch is a multiple of 256."""

    def __init__(self, dataset: Sized, **kwargs: Any) -> None:
        super().__init__(dataset, **kwargs)
        if images := len(dataset) // 256 * 256:
            self.num_selected_samples = images // self.world_size
