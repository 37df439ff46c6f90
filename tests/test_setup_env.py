"""What tools/setup_env.sh says when it cannot set up; nothing is installed."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / 'tools' / 'setup_env.sh'
BASH = shutil.which('bash')
VARIABLES = ('APA_PYTHON', 'PYTHON', 'MMCV_WHEEL', 'CC', 'CXX')


def python(minor):
    """Return a stub that runs code as Python 3.``minor`` would see it."""
    return f"""#!/bin/sh
[ "$1" = --version ] && echo Python 3.{minor}.2 && exit 0
exec '{sys.executable}' -c 'import sys
sys.version_info = (3, {minor}, 2, "final", 0)
exec(sys.argv[1])' "$2"
"""


@pytest.fixture
def setup(tmp_path):
    stubs = tmp_path / 'bin'
    stubs.mkdir()

    def run(*words, path=os.environ['PATH'], **variables):
        env = {k: v for k, v in os.environ.items() if k not in VARIABLES}
        env.update(
            PATH=f'{stubs}{os.pathsep}{path}',
            APA_VENV=str(tmp_path / 'env'),
            APA_CACHE=str(tmp_path / 'cache'),
            # Should the script go on where it must stop, pip finds nothing.
            PIP_NO_INDEX='1',
            **variables)
        return subprocess.run([BASH, str(SCRIPT), *words],
                              capture_output=True,
                              text=True,
                              env=env,
                              cwd=tmp_path,
                              timeout=120)

    def stub(name, text):
        path = stubs / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    run.stub, run.folder = stub, tmp_path
    return run


def sentence(result):
    """Return the one error line of a run that failed and printed no path."""
    assert result.returncode == 1
    assert result.stdout == ''
    line, = result.stderr.splitlines()
    assert line.startswith('[setup] ERROR: ')
    return line


def test_pythons_on_the_path_are_too_old(setup):
    for name in ('python3', 'python3.10', 'python3.11', 'python3.12'):
        setup.stub(name, python(9))
    line = sentence(setup())
    assert 'needs Python 3.10 or newer' in line
    assert "but 'python3' is 'Python 3.9.2'" in line
    assert 'PYTHON=/path/python3' in line
    assert not (setup.folder / 'env').exists()


def test_the_named_python_is_too_old(setup):
    # A newer one on the path does not count: the user named this one.
    old = setup.stub('old-python', python(9))
    assert f"but '{old}' is 'Python 3.9.2'" in sentence(setup(PYTHON=old))


def test_python_3_10_is_new_enough(setup):
    named = setup.stub('python-310', python(10))
    assert 'C++ compiler' in sentence(setup(PYTHON=named, CXX='no-such'))


def test_the_named_python_is_missing(setup):
    line = sentence(setup(PYTHON='no-such-python'))
    assert "Python 3.10 or newer, but 'no-such-python' is" in line


def test_a_python_that_cannot_make_environments(setup):
    bare = setup.stub(
        'bare-python',
        '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexit 0\n')
    line = sentence(setup(PYTHON=bare))
    assert f"'{bare}' cannot make virtual environments" in line
    assert 'python3-venv' in line


@pytest.mark.parametrize('variable', ['CXX', 'CC'])
def test_a_missing_compiler(setup, variable):
    line = sentence(
        setup(PYTHON=sys.executable, **{variable: 'no-such-compiler'}))
    assert "building mmcv's ops needs a C++ compiler" in line
    assert 'MMCV_WHEEL=' in line
    # Told before minutes of downloading.
    assert not (setup.folder / 'env').exists()


def test_a_wheel_that_does_not_exist(setup):
    line = sentence(setup(PYTHON=sys.executable, MMCV_WHEEL='no.whl'))
    assert 'MMCV_WHEEL=no.whl does not exist; name an mmcv 2.1.0 wheel' in line
    assert not (setup.folder / 'env').exists()


def test_an_environment_of_the_user_that_is_not_executable(setup):
    line = sentence(setup(APA_PYTHON='/no/python'))
    assert 'APA_PYTHON=/no/python is not an executable' in line
    assert list(setup.folder.iterdir()) == [setup.folder / 'bin']


def test_an_environment_of_the_user_without_the_libraries(setup):
    empty = setup.stub(
        'empty-python',
        '#!/bin/sh\necho "No module named torch"\nexit 1\n')
    line = sentence(setup(APA_PYTHON=empty))
    assert f'APA_PYTHON={empty} lacks a part of the stack' in line
    assert '(No module named torch)' in line
    assert list(setup.folder.iterdir()) == [setup.folder / 'bin']


def test_an_environment_of_the_user_is_used_as_it_is(setup):
    fine = setup.stub('fine-python', '#!/bin/sh\nexit 0\n')
    result = setup(APA_PYTHON='fine-python')
    assert (result.returncode, result.stdout.strip()) == (0, fine)
    assert list(setup.folder.iterdir()) == [setup.folder / 'bin']


def test_a_folder_that_is_not_an_environment_is_left_alone(setup):
    setup.stub('g++', '#!/bin/sh\n')
    setup.stub('gcc', '#!/bin/sh\n')
    folder = setup.folder / 'env'
    folder.mkdir()
    (folder / 'thesis.tex').write_text('years of work')
    line = sentence(setup(PYTHON=sys.executable))
    assert f'{folder} exists and was not made by this script' in line
    assert (folder / 'thesis.tex').read_text() == 'years of work'


def test_an_environment_of_someone_else_is_left_alone(setup):
    folder = setup.folder / 'env'
    folder.mkdir()
    (folder / 'pyvenv.cfg').write_text('home = /usr/bin')
    (folder / 'keep.txt').write_text('installed by hand')
    # It may stop with an error or go on beside it, but must not delete it.
    setup(PYTHON=setup.stub('p', '#!/bin/sh\n[ "$1" = -m ] && exit 9\nexit 0'),
          CC='true', CXX='true')
    assert (folder / 'keep.txt').exists()


@pytest.mark.parametrize('words, message', [
    (('--stack', 'openmmlab'), "--stack must be official or onedl, but got "
     "'openmmlab'"),
    (('--stack', ), "but got ''"),
    (('onedl', ), "'onedl' is no argument of this script"),
    (('--stack', 'onedl', '-v'), "'-v' is no argument of this script"),
])
def test_words_that_are_not_understood(setup, words, message):
    assert message in sentence(setup(*words))


def test_each_stack_has_its_own_mmcv(setup):
    line = sentence(setup('--stack', 'onedl', PYTHON=sys.executable,
                          MMCV_WHEEL='no.whl'))
    assert 'name an onedl-mmcv 2.3.6 wheel' in line


def test_a_kept_wheel_of_the_other_stack_does_not_count(setup):
    kept = setup.folder / 'cache/wheels/mmcv-2.1.0_torch'
    kept.mkdir(parents=True)
    (kept / 'mmcv-2.1.0-py3.whl').touch()
    words = dict(PYTHON=sys.executable, CXX='no-such')
    assert 'C++ compiler' in sentence(setup('--stack', 'onedl', **words))
    assert 'C++ compiler' not in setup(**words).stderr


def test_the_script_is_valid_shell():
    assert subprocess.run([BASH, '-n', str(SCRIPT)]).returncode == 0
