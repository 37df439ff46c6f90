"""Refuse a checkpoint that does not fit the model."""
import re
from typing import Any, Dict

from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor

from apa_mm.registry import HOOKS
from apa_mm.preflight.class_order import class_order_problem
from apa_mm.weights.load_check import rehearse_loading, unwrap
from apa_mm.preflight.job import InputError
from apa_mm.weights.pretrained import MIN_MATCHED, Comparison

__all__ = ['CheckpointCheckHook']


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Compare a checkpoint with the model before its weights are applied.

    mmengine loads with ``strict=False``: whatever does not fit is left out
    with a warning, and a model that took nothing at all is trained or
    evaluated all the same. With this hook

    - testing, validating and resuming need every tensor of the model, in its
      shape;
    - ``load_from`` for a new training needs a given fraction of them and
      logs one line with the counts;
    - a classifier that is taken over must have its classes in the order of
      the data sets, as far as the file says
      (:mod:`apa_mm.preflight.class_order`).

    Tensors that only the file has are counted in the log line and never an
    error. ``tools/train.py`` and ``tools/test.py`` add the hook by
    themselves unless ``--skip-checks`` is given.

    Args:
        min_matched (float): Fraction of the model's tensors, in [0, 1], that
            ``load_from`` must match by name and shape.

    Raises:
        ValueError: If ``min_matched`` is outside [0, 1].

    Example:
        >>> hook = CheckpointCheckHook(min_matched=0.9)
        >>> hook.min_matched
        0.9
    """

    # Before the EMA hook exchanges weights, so that names are the file's.
    priority = 'VERY_HIGH'

    def __init__(self, min_matched: float = MIN_MATCHED) -> None:
        if not 0 <= min_matched <= 1:
            raise ValueError('min_matched must be a fraction in [0, 1], but '
                             f'got {min_matched}')
        self.min_matched = min_matched

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the file that was read but not applied yet.

        Args:
            runner (Runner): The runner that loads.
            checkpoint (dict): Content of the file.

        Raises:
            InputError: If the file has no state dict, does not fit, or has
                its classes in another order.
        """
        found = rehearse_loading(
            unwrap(runner.model), _state_dict_of(checkpoint))
        training = isinstance(runner.optim_wrapper,
                              (OptimWrapper, OptimWrapperDict))
        # The runner has no public word for it; mmengine's own hooks ask so.
        if training and not runner._resume:
            self._check_fraction(found)
            _check_class_order(runner, checkpoint, found)
            runner.logger.info(f'load_from: {found}')
            return
        if training:
            _check_resumable(checkpoint)
        if found.missing or found.reshaped:
            what = 'resume' if training else 'evaluate'
            raise InputError(
                f'the checkpoint is not of this model: {found}; {what} with '
                'the config that it was trained with, or name another file' +
                _hint(found))
        _check_class_order(runner, checkpoint, found)
        runner.logger.info(f'checkpoint: {found}')

    def _check_fraction(self, found: Comparison) -> None:
        total = sum(map(len, (found.matched, found.missing, found.reshaped)))
        if len(found.matched) < self.min_matched * total:
            raise InputError(
                f'load_from does not fit this model: {found}, but at least '
                f'{self.min_matched:.0%} must match; name a checkpoint of '
                'the same architecture, or set custom_hooks=[dict(type='
                "'apa_mm.CheckpointCheckHook', min_matched=...)]")


def _hint(found: Comparison) -> str:
    if not any('.fc_cls' in name for name in found.reshaped):
        return ''
    return (' (the classifier of another loss differs by a row: softmax has '
            'one more than apa_mm.GOLLoss, the background)')


def _state_dict_of(checkpoint: Any) -> Dict[str, Tensor]:
    """Return the tensors by name, without the ``module.`` of a wrapper."""
    tensors = checkpoint
    if isinstance(checkpoint, dict) and 'state_dict' in checkpoint:
        tensors = checkpoint['state_dict']
    if not isinstance(tensors, dict) or not all(
            isinstance(value, Tensor) for value in tensors.values()):
        keys = sorted(map(str, checkpoint)) if isinstance(checkpoint,
                                                          dict) else []
        raise InputError(
            f"the checkpoint has no 'state_dict' (its keys: {keys[:6]}), so "
            'nothing would be loaded from it; convert it with '
            'tools/convert_checkpoint.py')
    stripped = type(tensors)(
        (re.sub(r'^module\.', '', name), value)
        for name, value in tensors.items())
    if hasattr(tensors, '_metadata'):
        stripped._metadata = tensors._metadata
    return stripped


def _check_class_order(runner: Runner, checkpoint: dict,
                       found: Comparison) -> None:
    """Compare the classes of the file with those of the built loops."""
    tensors = _state_dict_of(checkpoint)
    # Class counts match without the file: it need not hold them.
    if not any(
            name in tensors and name.split('.')[0].endswith('head')
            for name in found.matched):
        return
    # The public properties would build the loops that do not run.
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        dataset = getattr(getattr(loop, 'dataloader', None), 'dataset', None)
        metainfo = getattr(dataset, 'metainfo', None) or {}
        problem = class_order_problem(checkpoint.get('meta') or {}, metainfo)
        if problem is not None and dataset is not None:
            raise InputError(problem)


def _check_resumable(checkpoint: dict) -> None:
    absent = [k for k in ('meta', 'message_hub') if k not in checkpoint]
    if absent:
        raise InputError(
            f'the checkpoint lacks {absent} and cannot be resumed from, only '
            'its weights are there; start from them with load_from instead')
