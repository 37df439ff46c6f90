"""Many-, medium- and few-shot accuracy as an mmengine metric."""
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from mmengine.evaluator import BaseMetric

from apa_mm.functional.shots import FEW_SHOT, MANY_SHOT, shot_accuracy
from apa_mm.registry import DATASETS, METRICS

from .class_counts import dataset_class_counts
from .predictions import read_prediction


@METRICS.register_module()
class ShotAccuracy(BaseMetric):
    """Mean class accuracy over classes with many, medium, few train images.

    The groups come from the *training* images per class, taken from the
    first of these that is there; if none is, the error comes when the loop
    is built:

    1. ``class_counts``;
    2. ``train_dataset``, of which only the labels are read;
    3. ``train_class_counts`` in the meta information of the data set under
       test, as the long-tailed sets of :mod:`apa_mm.cls.datasets` have it.

    Results are in per cent; a group without classes has no entry. Every
    sample is one entry of ``results``, so that mmengine drops exactly those
    with which a sampler that deals in turns pads the last round.

    Args:
        class_counts (Sequence[int], optional): Train images per class, C.
        train_dataset (dict, optional): Config of the training data set.
        many, few (int): Borders, see :func:`apa_mm.functional.shot_groups`.
        collect_device, prefix: Of :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: If both sources of counts are given, none is found, or
            the number of counts is not the number of classes.
    """

    default_prefix = 'shot'

    def __init__(self, class_counts: Optional[Sequence[int]] = None,
                 train_dataset: Optional[dict] = None, many: int = MANY_SHOT,
                 few: int = FEW_SHOT, collect_device: str = 'cpu',
                 prefix: Optional[str] = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if class_counts is not None and train_dataset is not None:
            raise ValueError(
                'got both class_counts and train_dataset; give only one')
        if few > many + 1:
            raise ValueError('few must be at most many + 1, but got '
                             f'few={few} and many={many}')
        self.many, self.few = many, few
        self._counts = None if class_counts is None else list(class_counts)
        if train_dataset is not None:
            # The transforms are of no use here and may be costly to build.
            self._counts = dataset_class_counts(
                DATASETS.build({**train_dataset, 'pipeline': []}))

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, dataset_meta: Optional[dict]) -> None:
        """Take the meta information and make sure that counts are there."""
        self._dataset_meta = dataset_meta
        counts = self.class_counts
        classes = (dataset_meta or {}).get('classes')
        if classes and len(classes) != len(counts):
            raise ValueError(
                f'ShotAccuracy has train counts of {len(counts)} classes, but '
                f'the test set has {len(classes)} classes; both must be the '
                'same, in the same order')

    @property
    def class_counts(self) -> List[int]:
        """Train images per class."""
        if self._counts is not None:
            return self._counts
        counts = (self._dataset_meta or {}).get('train_class_counts')
        if counts is None:
            raise ValueError(
                'ShotAccuracy does not know the train images per class: set '
                'train_dataset=dict(...) or class_counts=[...], or test on a '
                'data set whose metainfo has train_class_counts '
                '(ImageListDataset with train_ann_file)')
        return list(counts)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the predicted and the true class of every sample."""
        num_classes = len(self.class_counts)
        for sample in data_samples:
            pred, label, scores = read_prediction(sample)
            if len(scores) != num_classes:
                raise ValueError(
                    f'the classifier has {len(scores)} classes, but '
                    f'ShotAccuracy has train counts of {num_classes}; set '
                    'num_classes of the head to that of the training set')
            self.results.append((pred, label))

    def compute_metrics(
            self, results: List[Tuple[int, int]]) -> Dict[str, float]:
        """Return 'many', 'medium', 'few' in [0, 100], if they have samples."""
        pairs = torch.tensor(results, dtype=torch.int64).reshape(-1, 2)
        shots = shot_accuracy(*pairs.T, self.class_counts, self.many, self.few)
        return {name: 100 * float(value) for name, value in shots.items()
                if not value.isnan()}
