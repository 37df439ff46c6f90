"""What LVIS's files say about an image, brought to the loss.

On an image only the classes it shows and those of ``neg_category_ids`` were
looked for; an object of any other class may stand there without a label.
"""
import logging
from typing import Any, Dict, Iterable, List, Optional, Sequence

from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmengine.logging import print_log

from apa_mm.data.annotations import Annotation, Image
from apa_mm.det.datasets import LVISV1Dataset
from apa_mm.registry import DATASETS, MODELS

KEY = 'verified_labels'


@DATASETS.register_module()
class FederatedLVISDataset(LVISV1Dataset):
    """:class:`apa_mm.LVISV1Dataset` that tells what was looked for.

    Each data sample has ``verified_labels`` in its meta information, the
    labels that are positive or verified negative there, ascending; all of
    them where the file has no list, as one line says then.
    """

    #: For the cache, and for the checks before training.
    reads_as_parent = True
    gives_verified = True

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for step in self.pipeline.transforms:
            if hasattr(step, 'meta_keys'):
                step.meta_keys = (*step.meta_keys, KEY)

    def full_init(self) -> None:
        """Read the annotations as the parent does."""
        begun = self._fully_initialized
        super().full_init()
        first = {} if begun or not len(self) else self.get_data_info(0)
        if isinstance(first.get(KEY), range):
            print_log(
                f'{self.ann_file} has no neg_category_ids (image '
                f'{first["img_id"]}): every class counts as looked for there, '
                'and none of its negatives is dropped', 'current',
                logging.WARNING)

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse one image as the parent does, and add the labels."""
        info = super().parse_data_info(raw_data_info)
        info[KEY] = _verified(
            (item['category_id'] for item in raw_data_info['raw_ann_info']),
            raw_data_info['raw_img_info'].get('neg_category_ids'),
            self.cat2label)
        return info

    def _info(self, image: Image, items: List[Annotation],
              labels: dict) -> dict:
        info = super()._info(image, items, labels)
        info[KEY] = _verified((item.category_id for item in items),
                              image.neg_category_ids, labels)
        return info


def _verified(shown: Iterable[int], absent: Optional[List[int]],
              labels: Dict[int, int]) -> Sequence[int]:
    if absent is None:
        return range(len(labels))
    return sorted(labels[i] for i in {*shown, *absent} if i in labels)


class _HandsListsOn:
    """Mixin of the heads below."""

    gives_verified = True

    def loss(self, x: tuple, rpn_results_list: list,
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
                f'{type(self).__mro__[2].__name__}') from None
        return super().loss(x, rpn_results_list, batch_data_samples)

    def bbox_loss(self, *args: Any) -> dict:
        """Tell the loss whose the RoIs are, then do as the parent does.

        ``args`` end with the sampling results, and begin with the stage where
        there are several.
        """
        head = self.bbox_head[args[0]] if len(args) > 2 else self.bbox_head
        head.loss_cls.set_verified(
            self._verified, [len(item.priors) for item in args[-1]])
        return super().bbox_loss(*args)


@MODELS.register_module()
class FederatedRoIHead(_HandsListsOn, StandardRoIHead):
    """mmdet's ``StandardRoIHead`` that hands ``verified_labels`` on.

    For a classifier loss with ``set_verified``, such as
    :class:`apa_mm.GOLLoss` with ``unverified_only``.
    """


@MODELS.register_module()
class FederatedCascadeRoIHead(_HandsListsOn, CascadeRoIHead):
    """The same of mmdet's ``CascadeRoIHead``, for the loss of each stage."""
