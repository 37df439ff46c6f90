"""Find top-level config keys that nothing reads.

mmengine's Runner ignores a key that it does not know, so a misspelt or
outdated one changes nothing and says nothing. Configs may hold helper
variables under any name, so only keys of MMDetection 2.x and
MMClassification 0.x are refused, and near misses of a key that is read.
"""
import difflib
import inspect
from typing import Dict, List, Optional, Sequence

from mmengine.config import Config
from mmengine.runner import Runner

from apa_mm.preflight.findings import Findings

#: Keys of the 2.x libraries and what reads that setting now.
_DEAD_KEYS: Dict[str, str] = dict(
    fp16="optim_wrapper=dict(type='AmpOptimWrapper') or --amp",
    evaluation='val_evaluator and train_cfg.val_interval',
    lr_config='param_scheduler',
    momentum_config='param_scheduler',
    runner='train_cfg',
    checkpoint_config='default_hooks.checkpoint',
    log_config='default_hooks.logger',
    workflow='train_cfg and val_cfg',
    total_epochs='train_cfg.max_epochs',
    auto_resume='resume=True or --resume',
    dist_params='env_cfg.dist_cfg')
#: Keys that configs of mmdet 3.3 and mmpretrain 1.2 still carry beside their
#: successor (the second entry), where they do no harm.
_LEFTOVER_KEYS: Dict[str, tuple] = dict(
    data=('train_dataloader, val_dataloader and test_dataloader',
          'train_dataloader'),
    optimizer_config=('optim_wrapper.clip_grad', 'optim_wrapper'),
    cudnn_benchmark=('env_cfg.cudnn_benchmark', 'env_cfg'),
    resume_from=('load_from with resume=True, or --resume', 'default_scope'))
#: Keys that the Runner and the launchers read from the config itself.
_OTHER_KEYS = ('model_wrapper_cfg', 'sync_bn', 'find_unused_parameters',
               'activation_checkpointing', 'efficient_conv_bn_eval', 'compile',
               'runner_type', 'custom_imports', 'tta_model')
#: Over the 1,715 installed configs of mmdet 3.3.0 and mmpretrain 1.2.0 no
#: helper variable comes closer to a key than 0.81; "load_form" has 0.89.
_LIKENESS = 0.85


def check_keys(cfg: Config, splits: Sequence[str] = ()) -> Findings:
    """Find misspelt keys and keys of the 2.x libraries, for all splits."""
    problems, warnings = [], []
    read = [*inspect.signature(Runner).parameters, *_OTHER_KEYS]
    read.remove('cfg')
    for key, value in cfg.items():
        # Not among `read`, since train_pipeline is a fine name.
        if key in read or key == 'tta_pipeline' or value is None:
            continue
        if key in _LEFTOVER_KEYS:
            now, successor = _LEFTOVER_KEYS[key]
            (warnings if successor in cfg else problems).append(
                _dead(key, now))
        elif key in _DEAD_KEYS:
            problems.append(_dead(key, _DEAD_KEYS[key]))
        elif key == 'optimizer':
            # Some configs of mmpretrain name a variable so.
            if value != cfg.get('optim_wrapper', {}).get('optimizer'):
                problems.append(_dead(key, 'optim_wrapper.optimizer'))
        elif meant := _nearest(key, read):
            problems.append(f'config key {key!r} is not read; did you mean '
                            f'{meant!r}?')
    return Findings(problems, warnings)


def _dead(key: str, now: str) -> str:
    return (f'config key {key!r} is of the 2.x libraries and no longer '
            f'read; use {now}')


def _nearest(key: str, read: List[str]) -> Optional[str]:
    """Return the key that ``key`` is probably meant to be, if any."""
    for name in difflib.get_close_matches(key, read, n=1, cutoff=_LIKENESS):
        rest = key[len(name):] if key.startswith(name) else ''
        # val_evaluator_abs and train_dataloader2 are names of variables.
        if not rest[:1].isdigit() and not rest.startswith('_'):
            return name
    return None
