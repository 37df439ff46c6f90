"""The cache of the compiled library: whose it is, whether it is whole."""
import os
import stat
import subprocess
import sys
import time

import pytest

from apa_mm.kernels import build

needs_compiler = pytest.mark.skipif(
    build._compiler() is None, reason='no C++ compiler on this machine')
STUB = """#!/bin/sh
{before}
for last; do :; done
exec {compiler} {source} -shared -fPIC -o "$last"
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own, and a compiler that is fast and counts its runs."""
    source = tmp_path / 'tiny.cpp'
    source.write_text('extern "C" int answer() { return 42; }\n')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv('CXX', raising=False)
    real = build._compiler()

    def use(before=f'echo run >> {tmp_path}/runs', compiler=real):
        stub = tmp_path / 'c++'
        stub.write_text(STUB.format(
            before=before, compiler=compiler, source=source))
        stub.chmod(0o755)
        monkeypatch.setenv('CXX', str(stub))

    use()
    yield tmp_path / 'cache' / 'apa_mm' / 'native', use
    build.library.cache_clear()


def load():
    build.library.cache_clear()
    return build.library()


def runs(folder):
    file = folder.parents[2] / 'runs'
    return len(file.read_text().splitlines()) if file.exists() else 0


def forget(library):
    """Give the file back: a mapped library may not be truncated."""
    import _ctypes
    _ctypes.dlclose(library._handle)


@needs_compiler
def test_it_is_built_once_in_a_private_folder(cache):
    folder, _ = cache
    assert load().answer() == 42 and load().answer() == 42
    assert runs(folder) == 1
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    names = sorted(p.suffix for p in folder.iterdir())
    assert names == ['.sha256', '.so']


@needs_compiler
@pytest.mark.parametrize('damage', ['empty', 'cut', 'changed', 'digest'])
def test_what_is_damaged_is_built_again(cache, damage):
    folder, _ = cache
    forget(load())
    target, = folder.glob('*.so')
    data = target.read_bytes()
    if damage == 'digest':
        target.with_suffix('.sha256').write_bytes(b'\xff')
    else:
        target.write_bytes({
            'empty': b'',
            'cut': data[:len(data) // 2],
            'changed': data[:-1] + bytes([data[-1] ^ 1])
        }[damage])
    assert load().answer() == 42
    assert runs(folder) == 2


@needs_compiler
def test_no_compiler_is_needed_and_nothing_is_written(cache, monkeypatch):
    folder, _ = cache
    load()
    monkeypatch.setattr(build, '_compiler', lambda: None)
    folder.chmod(0o500)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())
    try:
        assert load().answer() == 42
    finally:
        folder.chmod(0o700)
    after = sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())
    assert before == after


@needs_compiler
@pytest.mark.parametrize('above', [0, 1])
def test_a_folder_of_somebody_else_is_not_loaded_from(cache, monkeypatch,
                                                      capfd, above):
    folder, _ = cache
    load()
    monkeypatch.setattr(os, 'geteuid', lambda: 12345)
    if folder.stat().st_uid == 0:  # root's are trusted
        os.chown([folder, folder.parent][above], 54321, -1)
    assert load().answer() == 42
    assert runs(folder) == 2  # made anew, elsewhere
    out = ''.join(capfd.readouterr())
    assert 'may be written to by others' in out
    assert out.count('set XDG_CACHE_HOME') == 1


@needs_compiler
@pytest.mark.parametrize('mode, owner, kept', [
    (0o755, 'mine', True), (0o1777, 'root', True), (0o755, 'root', True),
    (0o777, 'mine', False), (0o770, 'other', False), (0o755, 'other', False),
    (0o1777, 'other', False)])
def test_others_may_not_rename_our_folder(cache, monkeypatch, capfd, mode,
                                          owner, kept):
    """Who may write to the folder above it could."""
    folder, _ = cache
    home = folder.parents[1]
    home.mkdir()
    home.chmod(mode)
    lstat, uid = type(home).lstat, dict(
        mine=os.geteuid(), root=0, other=54321)[owner]

    def owned(path):
        info = lstat(path)
        return os.stat_result((*info[:4], uid, *info[5:10])) if (
            path == home.resolve()) else info

    monkeypatch.setattr(type(home), 'lstat', owned)
    assert load().answer() == 42
    assert folder.exists() == kept
    out = ''.join(capfd.readouterr())
    assert ('may be written to by others' in out) == (not kept)
    assert stat.S_IMODE(home.stat().st_mode) == mode  # it is not ours


@needs_compiler
def test_a_group_of_one_user_may_write_to_the_cache(cache, monkeypatch):
    """Where users have groups of their own, folders are made 0775."""
    folder, _ = cache
    home = folder.parents[1]
    home.mkdir()
    home.chmod(0o775)
    lstat = type(home).lstat
    group = [os.geteuid() + 1]

    def grouped(path):
        info = lstat(path)
        return os.stat_result((*info[:5], group[0], *info[6:10])) if (
            path == home.resolve()) else info

    monkeypatch.setattr(type(home), 'lstat', grouped)
    assert load().answer() == 42 and not folder.exists()
    group[0] = os.geteuid()
    assert load().answer() == 42 and folder.exists()


@needs_compiler
def test_a_new_cache_is_private_whatever_the_umask(cache):
    folder, _ = cache
    mask = os.umask(0)
    try:
        assert load().answer() == 42
    finally:
        os.umask(mask)
    assert stat.S_IMODE(folder.parents[1].stat().st_mode) == 0o700
    assert folder.exists()


@needs_compiler
@pytest.mark.parametrize('level', [0, 1, 2, 3])
def test_a_file_in_the_way_of_the_cache(cache, capfd, monkeypatch, level):
    folder, _ = cache
    named = place = [folder, *folder.parents][min(level, 2)]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text('')
    if level == 3:
        named = place / 'sub'
        monkeypatch.setenv('XDG_CACHE_HOME', str(named))
    assert load().answer() == 42
    out = ''.join(capfd.readouterr())
    assert f'a file lies where the folder {named} should be; set XDG' in out


@needs_compiler
@pytest.mark.parametrize('mode', [0o777, 0o1777])
def test_a_file_of_somebody_else_is_replaced(cache, mode):
    folder, _ = cache
    load()
    target, = folder.glob('*.so')
    target.chmod(mode)
    assert load().answer() == 42
    assert runs(folder) == 2 and target.stat().st_mode & 0o022 == 0


@needs_compiler
def test_a_folder_of_ours_that_others_may_write_to_is_closed(cache):
    folder, _ = cache
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert load().answer() == 42
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@needs_compiler
def test_a_compiler_that_hangs_is_stopped_with_its_children(cache, capfd,
                                                           monkeypatch):
    folder, use = cache
    use(before=f'sleep 1000 & echo $! > {folder.parents[2]}/child; wait')
    monkeypatch.setattr(build, 'TIMEOUT', 1)
    start = time.monotonic()
    assert load() is None
    assert time.monotonic() - start < 60
    child = int((folder.parents[2] / 'child').read_text())
    for _ in range(100):  # a process that ended may wait to be collected
        state = subprocess.run(['ps', '-o', 'stat=', '-p', str(child)],
                               capture_output=True, text=True).stdout
        if not state.strip() or state.startswith('Z'):
            break
        time.sleep(0.1)
    assert not state.strip() or state.startswith('Z')
    out = ''.join(capfd.readouterr())
    assert out.count('did not end within 1 seconds') == 1
    assert not list(folder.glob('*'))


@needs_compiler
def test_what_a_compiler_says_may_be_any_bytes(cache, capfd):
    folder, use = cache
    use(before=r"printf 'bad \377\376 bytes'; exit 1")
    assert load() is None and build.library() is None
    out = ''.join(capfd.readouterr())
    assert out.count('eager form on the CPU, which is slower') == 1
    assert 'bad' in out and 'bytes' in out and 'WARNING' in out


def test_without_a_home_it_is_made_for_the_process(cache, monkeypatch, capfd):
    monkeypatch.delenv('XDG_CACHE_HOME')

    def homeless():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(build.Path, 'home', homeless)
    if build._compiler() is None:
        assert load() is None
    else:
        assert load().answer() == 42
    assert 'home directory' in ''.join(capfd.readouterr())


@needs_compiler
def test_the_real_sources_compile_into_an_empty_cache(tmp_path):
    """In a process of its own, as a user's first call does."""
    code = ('from apa_mm.functional import aglu; import torch; '
            'from apa_mm.kernels.build import library; '
            'out = aglu(torch.ones(1), kappa=1., lambd=1.).item(); '
            'print(library() is not None, round(out, 5))')
    env = dict(os.environ, XDG_CACHE_HOME=str(tmp_path))
    out = subprocess.run([sys.executable, '-c', code], env=env,
                         capture_output=True, text=True)
    assert out.stdout.split()[-2:] == ['True', '0.73106'], (
        out.stdout + out.stderr)
    assert [p.suffix for p in sorted((tmp_path / 'apa_mm/native').iterdir())
            ] == ['.sha256', '.so']
