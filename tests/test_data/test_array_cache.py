"""The cache of arrays: whose it is, whether it is whole, who writes it."""
import hashlib
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from apa_mm.data.array_cache import Source, cached, file_state, put

SLOW_WRITER = """
import sys, time
import numpy as np
from apa_mm.data.array_cache import cached, put

def write(file):
    print('writing', flush=True)
    place = put(file, np.arange(5))
    file.flush()
    time.sleep({seconds})
    return dict(a=place), None

print(cached('p', ['s'], write)[0]['a'].tolist(), flush=True)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'apa_mm' / 'annotations'


@pytest.fixture
def write():
    def function(file):
        function.calls += 1
        return dict(
            a=put(file, np.arange(3, dtype=np.int8)),
            empty=put(file, np.zeros(0)),
            b=put(file, np.array([1.5, 2.5]))), [7]

    function.calls = 0
    return function


def entry(folder):
    path, = folder.glob('*/*/*.arrays')
    return path


def test_arrays_return_as_they_were_and_are_made_once(folder, write):
    for _ in range(2):
        arrays, rest = cached('p', ['s'], write)
        assert arrays['a'].tolist() == [0, 1, 2] and rest == [7]
        assert arrays['b'].tolist() == [1.5, 2.5] and not len(arrays['empty'])
        assert not arrays['a'].flags.writeable
        assert arrays['b'].flags.aligned
    assert write.calls == 1
    assert entry(folder).stat().st_mode & 0o77 == 0


def test_another_state_replaces_the_old_file(folder, write):
    cached('p', ['s'], write)
    old = entry(folder)
    cached('p', ['s', 2], write)
    assert write.calls == 2 and entry(folder) != old


def test_another_purpose_leaves_it(folder, write):
    cached('p', ['s'], write)
    cached('q', ['s'], write)
    cached('p', ['s'], write)
    assert write.calls == 2


def test_another_version_makes_its_own(write, monkeypatch):
    cached('p', ['s'], write)
    monkeypatch.setattr('apa_mm.data.array_cache.VERSION', 'next')
    cached('p', ['s'], write)
    assert write.calls == 2


def test_nobody_waits_for_what_is_there(write, monkeypatch):
    cached('p', ['s'], write)
    monkeypatch.setattr('apa_mm.data.array_cache._locked', None)
    cached('p', ['s'], write)


@pytest.mark.parametrize('keep', [0, 4, -9])
def test_a_cut_off_file_is_made_anew(folder, write, keep):
    cached('p', ['s'], write)
    path = entry(folder)
    path.write_bytes(path.read_bytes()[:keep])
    assert cached('p', ['s'], write)[0]['a'].tolist() == [0, 1, 2]
    assert write.calls == 2


def test_what_others_may_write_to_is_not_read(folder, write):
    cached('p', ['s'], write)
    entry(folder).chmod(0o666)
    cached('p', ['s'], write)
    assert write.calls == 2


@pytest.mark.skipif(os.geteuid() != 0, reason='only root gives files away')
def test_a_file_of_another_owner_is_not_read(folder, write):
    cached('p', ['s'], write)
    os.chown(entry(folder), 12345, -1)
    cached('p', ['s'], write)
    assert write.calls == 2 and entry(folder).stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason='only root gives files away')
def test_a_folder_of_another_owner_is_an_error(folder, write):
    cached('p', ['s'], write)
    os.chown(folder, 12345, -1)
    with pytest.raises(PermissionError, match='owner 12345'):
        cached('p', ['s'], write)


def test_a_symbolic_link_is_not_followed(folder, write, tmp_path):
    cached('p', ['s'], write)
    path = entry(folder)
    path.rename(tmp_path / 'elsewhere')
    path.symlink_to(tmp_path / 'elsewhere')
    cached('p', ['s'], write)
    assert write.calls == 2 and not path.is_symlink()


def start(seconds):
    return subprocess.Popen(
        [sys.executable, '-c', SLOW_WRITER.format(seconds=seconds)],
        stdout=subprocess.PIPE, text=True)


def test_a_killed_writer_leaves_nothing_that_is_read(folder, write):
    process = start(60)
    assert process.stdout.readline() == 'writing\n'
    process.kill()
    process.wait()
    assert list(folder.glob('*/*/.*'))  # half a file, under another name
    assert cached('p', ['s'], write)[0]['a'].tolist() == [0, 1, 2]
    assert not list(folder.glob('*/*/.*'))


def test_two_at_once_write_one_file(folder):
    one, two = start(1), start(1)
    texts = one.communicate()[0], two.communicate()[0]
    assert sorted(texts) == ['[0, 1, 2, 3, 4]\n',
                             'writing\n[0, 1, 2, 3, 4]\n']


def test_a_failing_writer_leaves_nothing(folder):
    def fail(file):
        file.write(b'half')
        raise ValueError('no')

    with pytest.raises(ValueError, match='no'):
        cached('p', ['s'], fail)
    assert [p.name for p in folder.glob('*/*/*')] == ['lock']


def noted(monkeypatch, path, text):
    """Write a file and have its digest believed at once."""
    monkeypatch.setattr('apa_mm.data.array_cache.TICK', -10**12)
    path.write_text(text)
    return file_state(path)


def test_state_is_path_size_time_and_digest(tmp_path, monkeypatch):
    path, content = tmp_path / 'a.json', bytes(range(256)) * (1 << 17)
    path.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert file_state('a.json') == [
        str(path), len(content), path.stat().st_mtime_ns,
        hashlib.sha256(content).hexdigest()]


@pytest.mark.parametrize('key', ['st_dev', 'st_ino', 'st_size', 'st_mtime_ns',
                                 'st_ctime_ns'])
def test_each_part_of_a_stamp_counts(tmp_path, monkeypatch, key):
    path = tmp_path / 'a.json'
    before, info = noted(monkeypatch, path, 'one'), path.stat()
    path.write_text('two')
    fields = {name: getattr(info, name) for name in dir(info)
              if name.startswith('st_')}
    for step in (0, 1):
        fields[key] += step
        with monkeypatch.context() as patch:
            patch.setattr('apa_mm.data.array_cache.os', SimpleNamespace(
                path=os.path, stat=lambda path: SimpleNamespace(**fields)))
            assert (file_state(path)[-1] == before[-1]) == (step == 0)


def test_state_changes_with_content_at_the_same_time_and_size(
        tmp_path, monkeypatch):
    path = tmp_path / 'a.json'
    before = noted(monkeypatch, path, 'one')
    then = path.stat().st_mtime_ns
    time.sleep(0.02)  # a tick of Linux is 10 ms at most
    path.write_text('two')
    os.utime(path, ns=(then, then))
    assert path.stat().st_mtime_ns == then
    assert file_state(path)[-1] != before[-1]


def test_the_digest_of_a_fresh_file_is_not_believed(tmp_path, monkeypatch):
    """Of a second write within the same tick no stamp tells."""
    path = tmp_path / 'a.json'
    path.write_text('one')
    now = time.time_ns()
    info = SimpleNamespace(st_dev=1, st_ino=2, st_size=3, st_mtime_ns=now,
                           st_ctime_ns=now)
    monkeypatch.setattr('apa_mm.data.array_cache.os', SimpleNamespace(
        path=os.path, stat=lambda path: info))
    before = file_state(path)
    path.write_text('two')
    assert file_state(path)[-1] != before[-1]


def test_the_digest_is_noted_and_believed_if_nobody_else_could_write(
        folder, tmp_path, monkeypatch):
    before = noted(monkeypatch, tmp_path / 'a.json', 'one')
    note, = folder.glob('*/state')
    note.write_text(note.read_text().replace(before[-1], 'x'))
    assert file_state(tmp_path / 'a.json')[-1] == 'x'
    note.chmod(0o666)
    assert file_state(tmp_path / 'a.json') == before
    assert note.stat().st_mode & 0o77 == 0
    note.write_text('')  # as after a crash of the machine
    assert file_state(tmp_path / 'a.json') == before


def test_what_was_made_of_a_lost_file_goes(folder, tmp_path, monkeypatch,
                                           write):
    states = [noted(monkeypatch, tmp_path / name, name) for name in 'ab']
    cached('p', states[0], write)
    (tmp_path / 'a').unlink()
    assert entry(folder)
    cached('p', states[1], write)
    assert entry(folder) and len(list(folder.iterdir())) == 1


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path):
    def read(path):
        path.write_text('two')

    path = tmp_path / 'a.json'
    path.write_text('one')
    with pytest.raises(OSError, match='a.json changed while it was read'):
        _ = Source(path, read).content


def test_content_is_read_once(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('one')
    source = Source(path, lambda path: [path.read_text()])
    assert source.content is source.content == ['one']


def test_state_changes_with_time(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('one')
    before = file_state(path)
    os.utime(path, ns=(0, 1))
    assert file_state(path) != before
