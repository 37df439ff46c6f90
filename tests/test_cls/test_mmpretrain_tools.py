"""MMPretrain's own tools run our configs."""
from pathlib import Path

import mmpretrain
import pytest
from support import forked
from support.configs import CLS, ROOT, parsed

TOOLS = Path(mmpretrain.__file__).parent / '.mim/tools'
CONFIG = 'configs/cls/digits_lt/apa-seresnet20_aglu_digits-lt-ir50.py'


def run(tool, *args):
    result = forked.run([TOOLS / tool, ROOT / CONFIG, *args])
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout + result.stderr


@pytest.mark.slow
def test_train(tmp_path):
    out = run('train.py', '--work-dir', str(tmp_path), '--cfg-options',
              'train_cfg.max_epochs=1', 'train_cfg.val_interval=1',
              'train_dataloader.batch_size=128')
    assert 'accuracy/top1' in out
    assert (tmp_path / 'epoch_1.pth').is_file()


@pytest.mark.slow
def test_browse_dataset(tmp_path):
    # Its other modes fail with matplotlib 3.11, whatever the config.
    run('visualization/browse_dataset.py', '--output-dir', str(tmp_path),
        '--not-show', '--mode', 'original', '-n', '2')
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize('name', CLS)
def test_the_visualizer_is_not_an_inherited_one(name):
    # browse_dataset.py gives all its keys to the class.
    assert '_scope_' not in parsed(name).visualizer
