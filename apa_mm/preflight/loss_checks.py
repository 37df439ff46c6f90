"""Check that a loss stands where it is understood and gets what it needs."""
from typing import Any, Iterator, List, Tuple

from mmengine.config import Config

__all__ = ['loss_problems']

#: Losses that need the training images per class.
COUNTING = ('GOLLoss', 'BalancedSoftmaxLoss', 'LogitAdjustedLoss',
            'DeferredReweightedLoss')
#: mmdet's box heads ask such a loss for channels, activation and accuracy.
_BOX_HEADS = '.roi_head.bbox_head'


def loss_problems(cfg: Config, training: bool) -> List[str]:
    """Return what is wrong with the losses of a config.

    Args:
        cfg (Config): The config of a job.
        training (bool): Whether it will train.

    Returns:
        list[str]: One sentence per problem: a :class:`apa_mm.GOLLoss` where
        mmdet would take its scores for those of a softmax or a sigmoid, and
        a loss that needs class counts without a source of them.
    """
    found = list(_find(cfg.get('model') or {}, 'model'))
    problems = [
        f'{place} is apa_mm.GOLLoss, which only the box heads of a roi_head '
        'understand: it scores the classes by Gumbel activations and without '
        'a background; set model.roi_head.bbox_head.loss_cls, and leave this '
        'one as mmdet has it' for place, name, _ in found
        # The detector may lie in another model, as for augmented testing.
        if name == 'GOLLoss' and not (
            _BOX_HEADS in place and place.endswith('.loss_cls'))
    ]
    if training and not _counts_come_from(cfg):
        # Without rare classes GOL drops nothing and asks for nothing.
        problems += [
            f'{place} is apa_mm.{name}, which needs the training images per '
            'class, and nothing tells it; add '
            "dict(type='apa_mm.ClassFrequencyHook') to custom_hooks, or give "
            '--skip-checks if code of yours calls set_class_frequency'
            for place, name, options in found
            if options.get('rare_threshold') != 0
        ]
    return problems


def _counts_come_from(cfg: Config) -> bool:
    """Return whether a hook, or a checkpoint, may hold the counts."""
    if cfg.get('load_from') or cfg.get('resume'):
        return True
    hooks = cfg.get('custom_hooks') or []
    return any(_own_name(hook) == 'ClassFrequencyHook' for hook in hooks)


def _find(node: Any, place: str) -> Iterator[Tuple[str, str, dict]]:
    if isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            yield from _find(item, f'{place}[{index}]')
    elif isinstance(node, dict):
        name = _own_name(node)
        if name in COUNTING:
            yield place, name, node
        for key, value in node.items():
            yield from _find(value, f'{place}.{key}')


def _own_name(node: Any) -> str:
    """Return the name of a class of this package, as configs write it."""
    kind = node.get('type') if isinstance(node, dict) else None
    if isinstance(kind, type):
        return kind.__name__ if kind.__module__.startswith('apa_mm.') else ''
    scope, _, name = str(kind).rpartition('.')
    return name if scope in ('apa_mm', '') else ''
