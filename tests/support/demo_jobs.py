"""The demo's own config on a few images, for tests that train it."""
import os
import subprocess
import sys
from pathlib import Path

from support import forked

ROOT = Path(__file__).parents[2]
# Last: tools/test.py must not stand for a module of that name.
TOOLS = ROOT / 'tools'
sys.path.append(str(TOOLS))
from demo import DigitsLVISSettings, make_digits_lvis  # noqa: E402

CONFIG = str(
    ROOT / 'configs/demo/mask-rcnn_apa-seresnet18_fpn_gol_digits-lvis.py')
#: Two images per step, small and few: a step takes half a second.
OPTIONS = {
    'train_dataloader.batch_size': 2,
    'train_cfg.max_iters': 2,
    'train_cfg.val_interval': 1000,
    'default_hooks.logger.interval': 1,
    'default_hooks.checkpoint.interval': 2,
    'log_processor.window_size': 1,
    'custom_hooks.0.allow_empty': True,
}


def write_data(folder: Path) -> Path:
    """Write a Digits-LVIS of twice 30 images where the config looks."""
    make_digits_lvis(
        str(folder / 'data/digits_lvis'),
        DigitsLVISSettings(num_train=30, num_val=30, exhaustive=True))
    return folder


def run_tool(*words, cwd, **env):
    """Run a script of ``tools/`` as a user does; return the process."""
    words = [TOOLS / words[0], *words[1:]]
    env = dict(os.environ, **env)
    if str(words[0]).endswith('.py'):
        return forked.run(words, cwd=cwd, env=env)
    return subprocess.run(['bash', *map(str, words)], cwd=cwd, env=env,
                          capture_output=True, text=True)


def words_of(options: dict) -> list:
    """Return ``options`` as words behind ``--cfg-options``."""
    return [f'{key}={value}' for key, value in options.items()]
