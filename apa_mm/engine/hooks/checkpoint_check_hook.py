"""Refuse a checkpoint that does not fit the model."""
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

from apa_mm.preflight.class_order import class_order_problem
from apa_mm.preflight.job import InputError
from apa_mm.registry import HOOKS
from apa_mm.weights.load_check import (CONVERT, Comparison, find_gaps,
                                       refuse_broken, rehearse_loading,
                                       state_dict_of, unwrap)


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Compare a checkpoint with the model before its weights are applied.

    With this hook, where mmengine leaves out what does not fit and goes on,

    - testing, validating and resuming need every tensor of the model, in its
      shape;
    - ``load_from`` for a new training may lack heads, necks and classifiers,
      but nothing of the backbone, and no kappa, lambda or block of a part
      that it has; one line with the counts is logged;
    - NaN and infinity in the weights are refused, complex numbers too;
    - a classifier that is taken over must have the classes of the data sets
      in their order (:mod:`apa_mm.preflight.class_order`).

    Tensors that only the file has are no error.
    """

    # Before the EMA hook exchanges weights, so that names are the file's.
    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the file that was read but not applied yet.

        Raises:
            InputError: If the file has no state dict, does not fit, or has
                its classes in another order.
        """
        model = unwrap(runner.model)
        tensors = state_dict_of(checkpoint)
        found = rehearse_loading(model, tensors)
        training = isinstance(runner.optim_wrapper,
                              (OptimWrapper, OptimWrapperDict))
        refuse_broken('the checkpoint', model, tensors, found)
        # The runner has no public word for it; mmengine's own hooks ask so.
        if training and not runner._resume:
            gaps = find_gaps(found)
            if gaps or not found.matched:
                first = f' (such as {gaps[0]})' if gaps else ''
                raise InputError(
                    f'load_from does not fit this model: {found}; {len(gaps)} '
                    f'of these{first} must come from the file, since only '
                    'heads, necks and classifiers may start anew; name a '
                    'checkpoint of the same architecture, or convert it with '
                    f'{CONVERT}')
            _check_class_order(runner, checkpoint, tensors, found)
            runner.logger.info(f'load_from: {found}')
            return
        absent = [k for k in ('meta', 'message_hub') if k not in checkpoint]
        if training and absent:
            raise InputError(
                f'the checkpoint lacks {absent} and cannot be resumed from; '
                'start from its weights with load_from instead')
        if found.missing or found.reshaped:
            what = 'resume' if training else 'evaluate'
            loss = (' (the classifier of another loss differs by a row: '
                    'softmax has one more than apa_mm.GOLLoss, the background)'
                    ) if any('.fc_cls' in k for k in found.reshaped) else ''
            raise InputError(f'the checkpoint is not of this model: {found}; '
                             f'{what} with the config that it was trained '
                             f'with, or name another file{loss}')
        _check_class_order(runner, checkpoint, tensors, found)
        runner.logger.info(f'checkpoint: {found}')


def _check_class_order(runner: Runner, checkpoint: dict, tensors: dict,
                       loaded: Comparison) -> None:
    """Compare the classes of the file with those of the built loops."""
    # Class counts match without the file: it need not hold them.
    if not any(name in tensors and name.split('.')[0].endswith('head')
               for name in loaded.matched):
        return
    # The public properties would build the loops that do not run.
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        dataset = getattr(getattr(loop, 'dataloader', None), 'dataset', None)
        if dataset is None:
            continue
        found = getattr(dataset, 'metainfo', None) or {}
        # mmdet's concatenation has a list, if members differ in anything.
        for metainfo in found if isinstance(found, (list, tuple)) else [found]:
            problem = class_order_problem(
                checkpoint.get('meta') or {}, metainfo)
            if problem is not None:
                raise InputError(problem)
