import hashlib
import json
import os
import re

import pytest
import torch

from apa_mm.checkpoint import CheckpointError, read_checkpoint
from apa_mm.checkpoint.writing import write_bytes, write_checkpoint

TENSORS = {'a': torch.arange(6.).reshape(2, 3), 'n': torch.tensor(4)}
META = dict(source='x', notes=['one'], backbone_cfg=dict(depth=50))


@pytest.mark.parametrize('name', ['out.pth', 'out.safetensors'])
def test_what_is_written_is_read(tmp_path, name):
    path = write_checkpoint(str(tmp_path / name), TENSORS, META)
    raw = read_checkpoint(path)
    if name.endswith('.pth'):
        assert raw.content['meta'] == META
        state = raw.content['state_dict']
    else:
        assert json.loads(raw.metadata['meta']) == META
        state = raw.content
    assert state.keys() == TENSORS.keys()
    for key, value in TENSORS.items():
        assert torch.equal(state[key], value)
        assert state[key].dtype == value.dtype


def test_mmengine_loads_it(tmp_path):
    from mmengine.runner import load_checkpoint
    model = torch.nn.Linear(3, 2)
    state = {k: torch.randn_like(v) for k, v in model.state_dict().items()}
    path = write_checkpoint(str(tmp_path / 'a.pth'), state, META)
    loaded = load_checkpoint(model, path, strict=True)
    assert torch.equal(model.weight, state['weight'])
    assert loaded['meta']['source'] == 'x'


def test_the_suffix_is_the_files_own_digest(tmp_path):
    path = write_checkpoint(
        str(tmp_path / 'a.pth'), TENSORS, META, hash_suffix=True)
    found = re.fullmatch(r'a-([0-9a-f]{8})\.pth', os.path.basename(path))
    digest = hashlib.sha256((tmp_path / found[0]).read_bytes()).hexdigest()
    assert found[1] == digest[:8]
    assert os.listdir(tmp_path) == [found[0]]


def test_equal_content_gives_equal_bytes(tmp_path):
    one = write_checkpoint(str(tmp_path / 'a.pth'), TENSORS, META)
    two = write_checkpoint(str(tmp_path / 'b.pth'), TENSORS, META)
    assert (tmp_path / one).read_bytes() == (tmp_path / two).read_bytes()


def test_views_are_written_without_what_they_are_views_of(tmp_path):
    view = torch.zeros(10**6)[:3]
    path = write_checkpoint(str(tmp_path / 'a.pth'), dict(a=view), {})
    assert os.path.getsize(path) < 10**4


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_text('old')
    with pytest.raises(Exception, match='pickle'):
        write_checkpoint(str(path), TENSORS, dict(bad=lambda: 0))
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['a.pth']


def test_it_can_be_read_by_others(tmp_path):
    mask = os.umask(0o022)
    try:
        path = write_checkpoint(str(tmp_path / 'a.pth'), TENSORS, META)
        assert os.stat(path).st_mode & 0o777 == 0o644
    finally:
        os.umask(mask)


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(CheckpointError, match='folder .*file of a.pth cannot'):
        write_checkpoint(str(tmp_path / 'file' / 'a.pth'), TENSORS, META)
    (tmp_path / 'taken').mkdir()
    with pytest.raises(CheckpointError, match='cannot be written'):
        write_checkpoint(str(tmp_path / 'taken'), TENSORS, META)
    with pytest.raises(CheckpointError, match='cannot be written'):
        write_bytes(str(tmp_path / 'no' / 'a.py'), b'x')
    assert sorted(os.listdir(tmp_path)) == ['file', 'taken']


def test_the_folder_is_made(tmp_path):
    path = write_checkpoint(str(tmp_path / 'a' / 'b' / 'c.pth'), TENSORS, META)
    assert read_checkpoint(path).content['meta'] == META


def test_what_a_killed_run_left_is_swept_once_it_is_old(tmp_path):
    old, new = tmp_path / '.converting-a', tmp_path / '.b.writing.pth'
    for path in (old, new):
        path.write_text('')
    shards = tmp_path / '.c.1.writing'  # a folder is never swept
    shards.mkdir()
    for path in (old, shards):
        os.utime(path, (0, 0))
    write_checkpoint(str(tmp_path / 'a.pth'), TENSORS, META)
    assert sorted(os.listdir(tmp_path)) == [
        '.b.writing.pth', '.c.1.writing', 'a.pth']
