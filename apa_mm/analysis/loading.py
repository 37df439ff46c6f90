"""Checkpoints and data of an analysis, for detectors and classifiers.

Legend: C classes, R boxes.
"""
import sys
from copy import deepcopy
from dataclasses import dataclass
from typing import (Any, Collection, Iterator, List, NamedTuple, Optional,
                    Sequence)

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.utils import track_iter_progress
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision.ops import box_iou

from apa_mm.engine.launch_options import load_config
from apa_mm.functional.shots import FEW_SHOT, MANY_SHOT
from apa_mm.weights import read_checkpoint
from apa_mm.weights.load_check import rehearse_loading, state_dict_of

from .errors import AnalysisError
from .groups import ClassGroups, group_classes

SPLITS = ('train', 'val', 'test')
#: Label of a box that is on no object.
BACKGROUND = -1
#: Overlap from which a RoI or a detection is on an object.
MATCH_OVERLAP = 0.5


class Source(NamedTuple):
    """What to analyse: a name for legends, a config and a checkpoint."""

    name: str
    config: str
    checkpoint: str


@dataclass
class Settings:
    """What all analyses have in common."""

    split: str = 'test'  # training images go through the test pipeline
    max_images: Optional[int] = None  # evenly spaced ones
    many: int = MANY_SHOT  # training images of a class; see group_classes
    few: int = FEW_SHOT
    cfg_options: Optional[dict] = None
    device: Optional[str] = None  # None takes what is there


@dataclass
class Subject:
    """A model in eval mode with its weights and the images to show it."""

    source: Source
    cfg: Config
    model: nn.Module
    dataset: Any
    indices: List[int]  # of the images
    classes: tuple  # their names, (C,)
    groups: Optional[ClassGroups]  # None if frequencies are not known

    @property
    def name(self) -> str:
        """str: For legends and tables."""
        return self.source.name

    @property
    def group_names(self) -> tuple:
        """tuple[str]: Groups from most to least images; () if unknown."""
        return () if self.groups is None else self.groups.names

    def group_of(self, label: Optional[int], default: str = '') -> str:
        """Return the group of a class, or ``default`` if it is unknown."""
        if label is None or self.groups is None:
            return default
        return self.groups.name_of(label)


class Batch(NamedTuple):
    """What a model said about some images."""

    infos: List[dict]  # what the data set knows of each
    samples: list  # its data sample with the predictions
    labels: List[np.ndarray]  # its true classes, int64


def load_model(cfg: Config, checkpoint: str) -> nn.Module:
    """Build a config's model on the CPU, in eval mode, with all weights."""
    state = state_dict_of(read_checkpoint(checkpoint).content)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model_cfg = deepcopy(cfg.model)
    if 'data_preprocessor' in cfg:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(model_cfg)
    found = rehearse_loading(model, state)
    if found.missing or found.reshaped:
        raise AnalysisError(
            f'{checkpoint} is not of the model in {cfg.filename}: {found}; '
            'give its own config (a second one by --also CONFIG CHECKPOINT)')
    model.load_state_dict(state, strict=False)
    return model.eval()


def load_subjects(sources: Sequence[Source], settings: Settings,
                  notes: List[str]) -> Iterator[Subject]:
    """Load checkpoints one by one, each with its split and class groups.

    ``notes`` gets what a reader must know of each.
    """
    for source in sources:
        subject = _load_subject(source, settings)
        notes += [f'{source.name}: {note}' for note in
                  _group_notes(subject.groups, len(subject.classes))]
        yield subject


def _load_subject(source: Source, settings: Settings) -> Subject:
    cfg = load_config(source.config, cfg_options=settings.cfg_options)
    model = load_model(cfg, source.checkpoint)
    dataset = DATASETS.build(_dataset_cfg(cfg, settings.split))
    if not len(dataset):
        raise AnalysisError(f'split {settings.split!r} of {source.config} has '
                            'no images; choose another with --split')
    size = min(len(dataset), settings.max_images or len(dataset))
    # Evenly spaced, so that every class of a sorted set is there.
    indices = np.linspace(0, len(dataset) - 1, size).round().astype(int)
    classes = tuple((getattr(dataset, 'metainfo', None) or {}).get(
        'classes') or ())
    if not classes:
        raise AnalysisError(f'split {settings.split!r} of {source.config} has '
                            'no class names; set metainfo=dict(classes=...)')
    if getattr(model, 'roi_head', None) is not None:
        # No analysis looks at masks, which take most of the time.
        model.roi_head.mask_head = None
    groups = group_classes(cfg, dataset, settings.many, settings.few)
    return Subject(source, cfg, model.to(settings.device or get_device()),
                   dataset, indices.tolist(), classes, groups)


def _dataset_cfg(cfg: Config, split: str) -> dict:
    """Return the data set of a split, read as for testing."""
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        there = [s for s in SPLITS if cfg.get(f'{s}_dataloader')]
        raise AnalysisError(f'{cfg.filename} has no {split}_dataloader, only '
                            f'those of {there}; choose one with --split')
    dataset = deepcopy(loader.dataset)
    if split == 'train':
        while 'dataset' in dataset:
            dataset = dataset.dataset
        other = cfg.get('test_dataloader') or cfg.get('val_dataloader')
        if other:
            dataset.pipeline = deepcopy(other.dataset.pipeline)
        dataset.test_mode = True
    return dataset


def _group_notes(groups: Optional[ClassGroups], num_classes: int) -> List[str]:
    if groups is None:
        return ['nothing tells how frequent the classes are, so that only all '
                'of them together are measured; use an LVIS file, a data set '
                'with train_class_counts or a config with train_dataloader']
    if len(groups.index) != num_classes:
        raise AnalysisError(
            f'the training set has {len(groups.index)} classes, but the split '
            f'{num_classes}; both must have the same classes')
    return [f'no class of the split is {name} ({groups.source}), so that the '
            'values of this group are empty; use another split or other '
            'borders (--many, --few)' for name in groups.empty()]


def run_images(subject: Subject, task: str,
               features_only: bool = False) -> Iterator[Batch]:
    """Show the model its images, with a progress bar on standard error.

    With ``features_only`` a detector stops before its heads, and the samples
    hold no predictions.
    """
    loader_cfg = subject.cfg.get('test_dataloader') or {}
    loader = DataLoader(Subset(subject.dataset, subject.indices),
                        batch_size=loader_cfg.get('batch_size', 1),
                        num_workers=loader_cfg.get('num_workers', 0),
                        collate_fn=pseudo_collate)
    init_default_scope(subject.cfg.get('default_scope', 'mmengine'))
    done = 0
    for data in progress(loader, f'{task} {subject.name}',
                         len(subject.indices)):
        with torch.no_grad():
            if features_only and hasattr(subject.model, 'extract_feat'):
                data = subject.model.data_preprocessor(data, False)
                subject.model.extract_feat(data['inputs'])
                samples = data['data_samples']
            else:
                samples = subject.model.test_step(data)
        infos = [subject.dataset.get_data_info(i)
                 for i in subject.indices[done:done + len(samples)]]
        done += len(samples)
        yield Batch(infos, samples, [true_labels(info) for info in infos])


def progress(items: Collection, title: str, num_images: int) -> Iterator:
    """Yield items under a progress bar on standard error, with a title."""
    print(f'{title}: {num_images} images', file=sys.stderr)
    return track_iter_progress((items, len(items)), file=sys.stderr)


def objects_of(info: dict) -> List[dict]:
    """Return the objects of an image without ignored ones."""
    return [item for item in info.get('instances', ())
            if not item.get('ignore_flag')]


def true_labels(info: dict) -> np.ndarray:
    """Return the classes that an image shows, without ignored objects."""
    if 'gt_label' in info:
        return np.array(info['gt_label'], dtype=np.int64).reshape(-1)
    return np.array([item['bbox_label'] for item in objects_of(info)],
                    dtype=np.int64)


def labels_of_boxes(boxes: Tensor, info: dict, sample: Any) -> Tensor:
    """Return the class of the object that each box is on, int64, (R,).

    It is :data:`BACKGROUND` where a box overlaps no object by
    :data:`MATCH_OVERLAP`. Boxes are x1, y1, x2, y2 in pixels of the network's
    input, (R, 4); ``info`` is what the data set knows of the image, ``sample``
    its data sample, which knows the scale.
    """
    labels = torch.full((len(boxes), ), BACKGROUND)
    objects = objects_of(info)
    if objects and len(boxes):
        scale = torch.tensor(
            sample.metainfo.get('scale_factor', (1, 1)), dtype=torch.float64)
        true_boxes = torch.tensor([o['bbox'] for o in objects],
                                  dtype=torch.float64) * scale.repeat(2)
        overlap, best = box_iou(boxes.double(), true_boxes).nan_to_num().max(1)
        classes = torch.tensor([o['bbox_label'] for o in objects])[best]
        labels = classes.where(overlap >= MATCH_OVERLAP, labels)
    return labels
