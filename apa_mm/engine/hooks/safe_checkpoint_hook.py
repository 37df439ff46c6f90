"""Checkpoints that are whole and that a run goes on from exactly."""
import os
from pathlib import Path
from typing import Any, Dict, List, Optional

from mmengine.dist import all_gather_object, get_rank, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from apa_mm.engine.random_state import (go_on_in_data, random_state,
                                        set_random_state, start_workers_anew)
from apa_mm.engine.resume import find_checkpoint
from apa_mm.preflight.job import InputError
from apa_mm.registry import HOOKS
from apa_mm.utils.files import replacing, sweep
from apa_mm.weights.load_check import unwrap

_BACKEND, _STATES = 'apa_mm.whole_files', 'random_states'


class _WholeFiles(LocalBackend):
    """Local files, written whole; what is removed goes at :meth:`settle`."""

    def __init__(self) -> None:
        super().__init__()
        self._removed: Dict[str, int] = {}

    def put(self, obj: bytes, filepath: str) -> None:
        try:
            Path(filepath).parent.mkdir(parents=True, exist_ok=True)
            with replacing(filepath) as temporary:
                temporary.write_bytes(obj)
        except OSError as error:
            raise InputError(
                f'checkpoint {filepath} cannot be written ({error.strerror}); '
                'make room there, or name another --work-dir. Earlier '
                'checkpoints are whole: go on with --resume') from error

    def remove(self, filepath: str) -> None:
        self._removed[filepath] = os.stat(filepath).st_ino

    def settle(self) -> None:
        """Remove the files, but not what has their names since."""
        for path, number in self._removed.items():
            if os.path.isfile(path) and os.stat(path).st_ino == number:
                os.remove(path)
        self._removed.clear()


register_backend(_BACKEND, _WholeFiles, force=True)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's checkpoint hook, with its arguments, that loses no run.

    Our configs name it, and our launchers put it in place of mmengine's.

    - A checkpoint, and ``last_checkpoint``, is written under a temporary
      name, synced and moved; the oldest goes only after that.
    - A model with weights that are not finite is not saved.
    - ``resume=True`` without a path takes the newest whole checkpoint of the
      work directory if ``last_checkpoint`` names none, see
      :func:`apa_mm.engine.resume.find_checkpoint`.
    - The states of all random generators travel in the checkpoint. A resumed
      run does what an uninterrupted one does, bit for bit, if the config has
      a seed and the number of processes is the same. For that, workers start
      anew with every epoch, and validation moves no generator.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._local = '://' not in (self.out_dir or '') and (
            self.file_client_args is None and self.backend_args is None)
        if self._local:
            self.backend_args = dict(backend=_BACKEND)
        self._states: Optional[List[dict]] = None
        self._before_val: Optional[dict] = None

    def before_run(self, runner: Runner) -> None:
        """Choose what to resume from, before mmengine does."""
        if runner._resume and runner._load_from is None:
            runner._load_from = find_checkpoint(runner.work_dir)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the generators' states; refuse another optimizer's state."""
        if runner._resume:
            self._states = checkpoint.get(_STATES)
            _check_optimizer(runner, checkpoint)

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder and go on where a resumed run stopped."""
        super().before_train(runner)
        if self._local and is_main_process():
            sweep(self.out_dir)
        states, self._states = self._states, None
        if runner.iter == 0:
            return
        inexact = _why_inexact(runner, states)
        if inexact:
            runner.logger.warning('the run goes on, but not bit for bit as if '
                                  f'it had not stopped: {inexact}')
        if states and len(states) > get_rank():
            state = states[get_rank()]
            go_on_in_data(runner.train_loop, lambda: set_random_state(state))

    def before_train_epoch(self, runner: Runner) -> None:
        """Start workers anew, since none begins in the middle of a run."""
        start_workers_anew(runner.train_dataloader, runner.seed, runner.epoch,
                           get_rank())

    def before_val(self, runner: Runner) -> None:
        """Note the generators' states, since validation moves them."""
        self._before_val = random_state()

    def after_val(self, runner: Runner) -> None:
        """Put the generators back."""
        if self._before_val is not None:
            set_random_state(self._before_val)
            self._before_val = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the states of the generators."""
        if self._states is not None:
            checkpoint[_STATES] = self._states

    def _save_checkpoint_with_step(self, runner: Runner, step: int,
                                   meta: dict) -> None:
        # On every rank, while saving is up to the first one.
        states = all_gather_object(
            dict(random=self._before_val or random_state(),
                 broken=_not_finite(unwrap(runner.model))))
        broken = [name for state in states for name in state['broken']]
        if broken:
            runner.logger.warning(
                f'no checkpoint at {step}: {len(broken)} weights are not '
                f'finite, such as {broken[0]}; earlier checkpoints are kept')
            return
        outdated = self._outdated(runner, step)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._states = [state['random'] for state in states]
        runner.save_checkpoint(
            self.out_dir, name, self.file_client_args, meta=meta,
            save_optimizer=self.save_optimizer, by_epoch=self.by_epoch,
            save_param_scheduler=self.save_param_scheduler,
            backend_args=self.backend_args, **self.args)
        self._states = None
        if is_main_process():
            with replacing(Path(runner.work_dir, 'last_checkpoint')) as mark:
                mark.write_text(self.last_ckpt)
            for path in filter(self.file_backend.isfile, outdated):
                self.file_backend.remove(path)
            if self._local:
                self.file_backend.settle()

    def _outdated(self, runner: Runner, step: int) -> List[str]:
        """Note the new checkpoint; return the paths of those beyond."""
        if self.max_keep_ckpts <= 0:
            return []
        steps = [old for old in self.keep_ckpt_ids if old != step] + [step]
        beyond = steps[:-self.max_keep_ckpts]
        kept = steps[len(beyond):]
        self.keep_ckpt_ids.clear()
        self.keep_ckpt_ids.extend(kept)
        runner.message_hub.update_info('keep_ckpt_ids', kept)
        return [self.file_backend.join_path(
            self.out_dir, self.filename_tmpl.format(old)) for old in beyond]

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        if self._local and is_main_process():
            self.file_backend.settle()


def _not_finite(model: nn.Module) -> List[str]:
    """Return the names of weights and running statistics with NaN or inf."""
    state = [*model.named_parameters(),
             *(pair for pair in model.named_buffers()
               if '.running_' in pair[0])]
    return [name for name, value in state if not value.isfinite().all()]


def _check_optimizer(runner: Runner, checkpoint: dict) -> None:
    if 'optimizer' not in checkpoint:
        runner.logger.warning('the checkpoint holds no state of an optimizer: '
                              'momentum and the like start anew')
        return
    if not isinstance(runner.optim_wrapper, OptimWrapper):
        return

    def sizes(groups: List[dict]) -> List[int]:
        return [len(group['params']) for group in groups]

    own = sizes(runner.optim_wrapper.optimizer.param_groups)
    try:
        saved = sizes(checkpoint['optimizer']['param_groups'])
    except (KeyError, TypeError):
        saved = []
    if saved != own:
        raise InputError(
            f'the optimizer of the checkpoint has {len(saved)} groups of '
            f'{sum(saved)} parameters, that of the config {len(own)} of '
            f'{sum(own)}; resume by the config it was trained with, or set '
            'load_from and resume=False')


def _why_inexact(runner: Runner, states: Optional[List[dict]]) -> str:
    if not states:
        return 'the checkpoint holds no states of the random generators'
    if len(states) != runner.world_size:
        return (f'it had {len(states)} processes and has '
                f'{runner.world_size} now')
    sampler = runner.train_dataloader.sampler
    if getattr(sampler, 'seed', runner.seed) != runner.seed:
        return ('the order of the data has another seed; set randomness=dict('
                f'seed={runner.seed}) in the config')
    return ''
