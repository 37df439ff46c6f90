"""Check that a loss stands where it is understood and gets what it needs.

What a class needs, the class says: a loss that defines ``get_cls_channels``
wants a head that asks for it, one whose ``needs_class_counts(cfg)`` is true
wants the training images per class, and a hook with ``gives_class_counts``
hands them out. One with ``set_verified`` may want the lists of LVIS's files,
which RoI heads and data sets with ``gives_verified`` bring.
"""
from typing import Any, Iterator, Optional, Sequence, Tuple

from mmengine.config import Config
from mmengine.registry import DATASETS, Registry
from mmengine.registry import MODELS as ALL_MODELS

from apa_mm.data.dataset_files import configured_class
from apa_mm.preflight.findings import Findings
from apa_mm.registry import HOOKS, MODELS, SCOPE


def check_losses(cfg: Config, splits: Sequence[str]) -> Findings:
    """Find losses of this package that would fail or learn something else."""
    problems = []
    scope = cfg.get('default_scope')
    counted = 'train' not in splits or _counts_come_from(cfg)
    for place, node, parent in _nodes(cfg.get('model') or {}, 'model', {}):
        kind = _own_class(MODELS, node.get('type'))
        name = f'{place} is {SCOPE}.{getattr(kind, "__name__", "")}'
        if hasattr(kind, 'get_cls_channels') and not _is_asked(
                place, parent, scope):
            problems.append(
                f'{name}, which only box heads of a roi_head that ask their '
                'loss for channels and activation understand, as '
                'Shared2FCBBoxHead does: it scores the classes without a '
                'softmax; set model.roi_head.bbox_head.loss_cls of such a '
                'head, and leave this one as mmdet has it')
        needs = getattr(kind, 'needs_class_counts', None)
        if not counted and needs is not None and needs(node):
            problems.append(
                f'{name}, which needs the training images per class, and '
                'nothing tells it; add '
                "dict(type='apa_mm.ClassFrequencyHook') to custom_hooks, or "
                'give --skip-checks if code of yours calls '
                'set_class_frequency')
        if 'train' in splits and node.get('unverified_only') and hasattr(
                kind, 'set_verified') and not _lists_come(cfg):
            problems.append(
                f'{name} with unverified_only, and nothing tells it what was '
                "looked for on an image; set model.roi_head.type='apa_mm."
                "FederatedRoIHead' (or FederatedCascadeRoIHead) and train on "
                'nothing but apa_mm.FederatedLVISDataset, or give '
                '--skip-checks if code of yours calls set_verified')
    return Findings(problems, [])


def drop_threshold(cfg: Config) -> float:
    """Return the image frequency below which some loss drops negatives."""
    kinds = ((_own_class(MODELS, node.get('type')), node) for _, node, _ in
             _nodes(cfg.get('model') or {}, 'model', {}))
    return max((kind.drops_below(node) for kind, node in kinds
                if hasattr(kind, 'drops_below')), default=0)


def _is_asked(place: str, head: dict, scope: Optional[str]) -> bool:
    """Return whether the head around a loss asks it for its channels."""
    # The detector may lie in another model, as for augmented testing.
    if '.roi_head.bbox_head' not in place or not place.endswith('.loss_cls'):
        return False
    kind = configured_class(ALL_MODELS, head.get('type'),
                            head.get('_scope_', scope))
    return kind is None or _asks(kind)


def _asks(head: type) -> bool:
    """Judge a head class: DoubleHead, SABL, Sparse R-CNN and CrowdDet do not.

    Its constructors that make a classifier must ask for the channels, and
    its loss for the activation.
    """
    makers = [_names(vars(base).get('__init__')) for base in head.__mro__]
    return 'custom_activation' in _names(getattr(head, 'loss', None)) and all(
        'get_cls_channels' in names for names in makers if 'fc_cls' in names)


def _names(function: Any) -> Sequence[str]:
    """Return the names that the code of a function uses."""
    return getattr(getattr(function, '__code__', None), 'co_names', ())


def _counts_come_from(cfg: Config) -> bool:
    """Return whether a hook, or a checkpoint, may hold the counts."""
    hooks = [_own_class(HOOKS, hook.get('type'))
             for hook in cfg.get('custom_hooks') or []
             if isinstance(hook, dict)]
    return bool(cfg.get('load_from') or cfg.get('resume')) or any(
        getattr(hook, 'gives_class_counts', False) for hook in hooks)


def _lists_come(cfg: Config) -> bool:
    """Return whether RoI head and training sets bring an image's lists."""
    gives = [[getattr(configured_class(registry, node.get('type'),
                                       cfg.get('default_scope')),
                      'gives_verified', False)
              for _, node, _ in _nodes(cfg.get(key), '', {})
              if 'pipeline' in node or 'ann_file' in node or key == 'model']
             for registry, key in ((ALL_MODELS, 'model'),
                                   (DATASETS, 'train_dataloader'))]
    return any(gives[0]) and all(gives[1])


def _nodes(node: Any, place: str,
           parent: dict) -> Iterator[Tuple[str, dict, dict]]:
    """Yield place, config and parent config of everything with a type."""
    if isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            yield from _nodes(item, f'{place}[{index}]', parent)
    elif isinstance(node, dict):
        if 'type' in node:
            yield place, node, parent
        for key, value in node.items():
            yield from _nodes(value, f'{place}.{key}', node)


def _own_class(registry: Registry, kind: Any) -> Optional[type]:
    """Return a class of this package by its config ``type``, else None."""
    if isinstance(kind, type):
        return kind if kind.__module__.startswith(f'{SCOPE}.') else None
    scope, _, name = str(kind).rpartition('.')
    return registry.get(name) if scope == SCOPE else None
