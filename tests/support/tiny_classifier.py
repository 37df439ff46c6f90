"""A tiny classifier and a Runner on noise images, for several tests."""
from pathlib import Path
from typing import List, Optional

import torch
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, MODELS
from mmpretrain.structures import DataSample
from torch import nn

#: Images per class of the data set.
COUNTS = (5, 2, 1)


@DATASETS.register_module(name='TinyNoise', force=True)
class TinyNoise(BaseDataset):
    """Eight noise images of 16 x 16 pixels with three labels."""

    def __init__(self, counts=COUNTS):
        self.counts = counts
        super().__init__(metainfo=dict(classes=('a', 'b', 'c')))

    def load_data_list(self) -> List[dict]:
        """Return one dict per image."""
        return [
            dict(gt_label=label) for label, count in enumerate(self.counts)
            for _ in range(count)
        ]

    def get_cat_ids(self, index: int) -> List[int]:
        """Return the label, as mmpretrain's data sets do."""
        return [self.get_data_info(index)['gt_label']]

    def __getitem__(self, index: int) -> dict:
        """Return a noise image that depends on the index alone."""
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 16, 16), generator=generator)
        sample = DataSample().set_gt_label(
            self.get_data_info(index)['gt_label'])
        return dict(inputs=image.to(torch.uint8), data_samples=sample)


def classifier(head: dict, backbone: Optional[dict] = None,
               **kwargs) -> dict:
    """Return the config of a 20-layer CIFAR classifier."""
    return dict(
        type='mmpretrain.ImageClassifier',
        data_preprocessor=dict(
            type='mmpretrain.ClsDataPreprocessor',
            mean=[127.] * 3,
            std=[74.] * 3,
            num_classes=3),
        backbone=dict(
            dict(type='apa_mm.APAResNetCIFAR', depth=20), **(backbone or {})),
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(dict(num_classes=3, in_channels=64), **head),
        **kwargs)


def build(head: dict, backbone: Optional[dict] = None, **kwargs) -> nn.Module:
    """Build the classifier."""
    return MODELS.build(classifier(head, backbone, **kwargs))


def runner(work_dir: Path, model: dict, max_epochs: int = 1,
           **kwargs) -> Runner:
    """Return a Runner that trains on :class:`TinyNoise` in two batches."""
    settings = dict(
        model=model,
        work_dir=str(work_dir),
        default_scope='mmpretrain',
        experiment_name=f'{work_dir.name}-{max_epochs}-{torch.rand(1).item()}',
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            dataset=dict(type='TinyNoise'),
            sampler=dict(type='mmengine.DefaultSampler', shuffle=True),
            collate_fn=dict(type='pseudo_collate')),
        train_cfg=dict(by_epoch=True, max_epochs=max_epochs),
        optim_wrapper=dict(
            optimizer=dict(
                type='SGD', lr=.1, momentum=.9, weight_decay=1e-2)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        randomness=dict(seed=0),
        log_level='WARNING')
    return Runner(**dict(settings, **kwargs))
