"""What LVIS's files say about an image, brought to the loss.

On an image only the classes it shows and those of ``neg_category_ids`` were
looked for; an object of any other class may stand there without a label.
"""
from typing import List, Tuple

from mmdet.datasets import LVISV1Dataset
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.task_modules.samplers import SamplingResult
from torch import Tensor

from apa_mm.registry import DATASETS, MODELS

__all__ = ['FederatedLVISDataset', 'FederatedRoIHead']

KEY = 'verified_labels'


@DATASETS.register_module()
class FederatedLVISDataset(LVISV1Dataset):
    """mmdet's ``LVISV1Dataset`` that tells what was looked for on an image.

    Each data sample has ``verified_labels`` in its meta information, the
    labels that are positive or verified negative there, ascending.
    """

    #: For the checks before training: images are found as the parent does.
    reads_as_parent = True

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for step in self.pipeline.transforms:
            if hasattr(step, 'meta_keys'):
                step.meta_keys = (*step.meta_keys, KEY)

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse one image as the parent does, and add the labels."""
        info = super().parse_data_info(raw_data_info)
        shown = {a['category_id'] for a in raw_data_info['raw_ann_info']}
        shown.update(raw_data_info['raw_img_info']['neg_category_ids'])
        info[KEY] = sorted(self.cat2label[i] for i in shown)
        return info


@MODELS.register_module()
class FederatedRoIHead(StandardRoIHead):
    """mmdet's ``StandardRoIHead`` that hands ``verified_labels`` on.

    For a classifier loss with ``set_verified``, such as
    :class:`apa_mm.GOLLoss` with ``unverified_only``.
    """

    def loss(self, x: Tuple[Tensor], rpn_results_list: list,
             batch_data_samples: List) -> dict:
        """Compute the parent's losses.

        Raises:
            ValueError: If a data sample has no ``verified_labels``.
        """
        try:
            self._verified = [s.metainfo[KEY] for s in batch_data_samples]
        except KeyError:
            raise ValueError(
                f'a data sample has no {KEY}; train on an apa_mm.'
                'FederatedLVISDataset, or, where the set has no list of '
                'verified negatives, with rare_threshold=0 and mmdet\'s '
                'StandardRoIHead') from None
        return super().loss(x, rpn_results_list, batch_data_samples)

    def bbox_loss(self, x: Tuple[Tensor],
                  sampling_results: List[SamplingResult]) -> dict:
        """Tell the loss which RoIs are whose, then do as the parent does."""
        self.bbox_head.loss_cls.set_verified(
            self._verified, [len(item.priors) for item in sampling_results])
        return super().bbox_loss(x, sampling_results)
