"""Checkpoints and data of an analysis, for detectors and classifiers.

Legend: C classes.
"""
import re
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Iterator, List, NamedTuple, Optional

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn
from torch.utils.data import DataLoader, Subset

from apa_mm.checkpoint import read_checkpoint
from apa_mm.engine.launch_options import load_config
from apa_mm.functional.shots import FEW_SHOT, MANY_SHOT
from apa_mm.surgery.replace import replace_activations
from apa_mm.weights.load_check import rehearse_loading

from .errors import AnalysisError
from .groups import ClassGroups, group_classes
from .progress import Progress

__all__ = [
    'Batch', 'Settings', 'Source', 'Subject', 'load_model', 'load_subject',
    'run_images', 'true_labels'
]

SPLITS = ('train', 'val', 'test')


class Source(NamedTuple):
    """What to analyse: a name for legends, a config and a checkpoint."""

    name: str
    config: str
    checkpoint: str


@dataclass
class Settings:
    """What all analyses have in common.

    Args:
        split (str): 'train', 'val' or 'test'; training images go through
            the test pipeline.
        max_images (int, optional): Evenly spaced images at most.
        many (int): Classes with more training images are many-shot.
        few (int): Classes with fewer training images are few-shot.
        cfg_options (dict, optional): Config settings to override.
        device (str, optional): 'cpu' or 'cuda'; None takes what is there.
    """

    split: str = 'test'
    max_images: Optional[int] = None
    many: int = MANY_SHOT
    few: int = FEW_SHOT
    cfg_options: Optional[dict] = None
    device: Optional[str] = None


@dataclass
class Subject:
    """A model with its weights and the images to show it.

    Args:
        source (Source): Where it comes from.
        cfg (Config): Its config.
        model (nn.Module): In eval mode.
        dataset (Any): The split.
        indices (list[int]): Which of its samples.
        classes (tuple[str]): Class names, (C,).
        groups (ClassGroups, optional): None if frequencies are not known.
        notes (list[str]): What a reader must know.
    """

    source: Source
    cfg: Config
    model: nn.Module
    dataset: Any
    indices: List[int]
    classes: tuple
    groups: Optional[ClassGroups]
    notes: List[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """str: For legends and tables."""
        return self.source.name

    @property
    def group_names(self) -> tuple:
        """tuple[str]: Groups from most to least images; () if unknown."""
        return () if self.groups is None else self.groups.names


class Batch(NamedTuple):
    """What a model said about some images.

    Attributes:
        infos (list[dict]): What the data set knows of every image.
        samples (list): Predictions, one data sample per image.
        labels (list[np.ndarray]): True classes of every image, int64.
    """

    infos: List[dict]
    samples: list
    labels: List[np.ndarray]


def load_model(cfg: Config, checkpoint: str) -> nn.Module:
    """Build the model of a config and load all of its weights.

    Args:
        cfg (Config): Its ``custom_hooks`` may hold ReplaceActivationsHook,
            which is applied.
        checkpoint (str): File of torch or safetensors.

    Returns:
        nn.Module: On the CPU, in eval mode.

    Raises:
        AnalysisError: If the checkpoint is of another model.
        CheckpointError: If the file cannot be read.
    """
    content = read_checkpoint(checkpoint).content
    state = {
        re.sub(r'^module\.', '', name): value
        for name, value in content.get('state_dict', content).items()
    }
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model_cfg = deepcopy(cfg.model)
    if 'data_preprocessor' in cfg:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = MODELS.build(model_cfg)
    for hook in cfg.get('custom_hooks') or ():
        if str(hook.get('type')).endswith('ReplaceActivationsHook'):
            replace_activations(
                model, **{k: v for k, v in hook.items()
                          if k not in ('type', 'priority')})
    found = rehearse_loading(model, state)
    if found.missing or found.reshaped:
        raise AnalysisError(
            f'{checkpoint} is not of the model in {cfg.filename}: {found}; '
            'give the config that it was trained with (--also CONFIG '
            'CHECKPOINT for a second one)')
    model.load_state_dict(state, strict=False)
    return model.eval()


def load_subject(source: Source, settings: Settings) -> Subject:
    """Load a checkpoint, its split and the frequencies of its classes.

    Args:
        source (Source): What to analyse.
        settings (Settings): How.

    Returns:
        Subject: Ready for :func:`run_images`.

    Raises:
        AnalysisError: If there is no such split, the checkpoint is of
            another model or the split is empty.
        InputError: If there is no such config.
    """
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
        raise AnalysisError(
            f'the data set of split {settings.split!r} in {source.config} '
            'has no class names; set metainfo=dict(classes=...)')
    if getattr(model, 'roi_head', None) is not None:
        # No analysis looks at masks, which take most of the time.
        model.roi_head.mask_head = None
    groups = group_classes(cfg, dataset, settings.many, settings.few)
    subject = Subject(
        source, cfg, model.to(settings.device or get_device()), dataset,
        indices.tolist(), classes, groups)
    subject.notes += _group_notes(subject, settings)
    return subject


def _dataset_cfg(cfg: Config, split: str) -> dict:
    """Return the data set of a split, read as for testing."""
    if split not in SPLITS:
        raise AnalysisError(f'--split must be one of {SPLITS}, but got '
                            f'{split!r}')
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        there = [s for s in SPLITS if cfg.get(f'{s}_dataloader')]
        raise AnalysisError(
            f'{cfg.filename} has no {split}_dataloader, only those of '
            f'{there}; choose one with --split')
    dataset = deepcopy(loader.dataset)
    if split == 'train':
        while 'dataset' in dataset:
            dataset = dataset.dataset
        other = cfg.get('test_dataloader') or cfg.get('val_dataloader')
        if other:
            dataset.pipeline = deepcopy(other.dataset.pipeline)
        dataset.test_mode = True
    return dataset


def _group_notes(subject: Subject, settings: Settings) -> List[str]:
    groups = subject.groups
    if groups is None:
        return [
            'nothing tells how frequent the classes are, so that only all of '
            'them together are measured; use an LVIS file, a data set with '
            'train_class_counts or a config with train_dataloader'
        ]
    if len(groups.index) != len(subject.classes):
        raise AnalysisError(
            f'the training set has {len(groups.index)} classes, but the split '
            f'{len(subject.classes)}; both must have the same classes')
    return [
        f'no class of the split is {name} ({groups.source}), so that the '
        'values of this group are empty; use another split or other borders '
        '(--many, --few)' for name in groups.empty()
    ]


def run_images(subject: Subject, task: str,
               features_only: bool = False) -> Iterator[Batch]:
    """Show the model its images, with progress on standard error.

    Args:
        subject (Subject): The model and its images.
        task (str): For the progress line.
        features_only (bool): Stop a detector before its heads; the samples
            then hold no predictions.

    Yields:
        Batch: Predictions, in the order of ``subject.indices``.
    """
    loader_cfg = subject.cfg.get('test_dataloader') or {}
    loader = DataLoader(
        Subset(subject.dataset, subject.indices),
        batch_size=loader_cfg.get('batch_size', 1),
        num_workers=loader_cfg.get('num_workers', 0),
        collate_fn=pseudo_collate)
    init_default_scope(subject.cfg.get('default_scope', 'mmengine'))
    progress = Progress(f'{task} {subject.name}', len(subject.indices))
    done = 0
    for data in loader:
        with torch.no_grad():
            samples = _pass(subject.model, data, features_only)
        infos = [
            subject.dataset.get_data_info(i)
            for i in subject.indices[done:done + len(samples)]
        ]
        done += len(samples)
        yield Batch(infos, samples, [true_labels(info) for info in infos])
        progress.show(done)


def _pass(model: nn.Module, data: dict, features_only: bool) -> list:
    if not features_only or not hasattr(model, 'extract_feat'):
        return model.test_step(data)
    data = model.data_preprocessor(data, False)
    model.extract_feat(data['inputs'])
    return data['data_samples']


def true_labels(info: dict) -> np.ndarray:
    """Return the classes that an image shows, without ignored objects."""
    if 'gt_label' in info:
        return np.array(info['gt_label'], dtype=np.int64).reshape(-1)
    return np.array([
        item['bbox_label'] for item in info.get('instances', ())
        if not item.get('ignore_flag')
    ], dtype=np.int64)
