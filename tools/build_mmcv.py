#!/usr/bin/env python
"""Build a wheel of mmcv with its ops for the torch of this environment.

    python tools/build_mmcv.py mmcv==2.1.0 FOLDER
    python tools/build_mmcv.py onedl-mmcv==2.3.6 FOLDER

Most of the time of mmcv's own build goes into reading torch's headers, once
for each of 78 files. For the CPU the sources of each folder are therefore
read into one file, which mmcv's own setup then compiles. If that fails, or
for CUDA, whose kernels stay apart, the sources are built as they come.
"""
import argparse
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

import torch

FOLDERS = ('mmcv/ops/csrc/pytorch', 'mmcv/ops/csrc/pytorch/cpu')
PIP = (sys.executable, '-m', 'pip', '--disable-pip-version-check',
       '--no-input')


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack the sdist into a new folder and return its root."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter='data')
    root, = folder.iterdir()
    raise_standard(root / 'setup.py', torch.__version__)
    return root


def raise_standard(setup: Path, version: str) -> None:
    """Ask for C++20 where torch's headers need it and mmcv says C++17."""
    if tuple(map(int, version.split('.')[:2])) >= (2, 14):
        text = setup.read_text()
        setup.write_text(text.replace('-std=c++17', '-std=c++20'))


def definitions(text: str) -> tuple:
    """Return the macros of a source, and its structs and functions."""
    text = re.sub(r'/\*.*?\*/|//[^\n]*', '', text, flags=re.S)
    macros = set(re.findall(r'^ *# *define +(\w+)', text, re.M))
    names = set(re.findall(r'^(?:struct|class) +(\w+)[^;]*?\{', text, re.M))
    names |= set(re.findall(
        r'^(?:[\w:<>,*&]+[ \n*&]+)+(\w+)\s*\([^;{}()]*\)\s*\{', text, re.M))
    return macros, names


def unite(root: Path) -> None:
    """Turn the C++ files of each folder into one that includes them.

    What two of them define gets another name in each; macros end with their
    file. Torch's headers are read before any of that.
    """
    for folder in FOLDERS:
        sources = sorted((root / folder).glob('*.cpp'))
        if len(sources) < 2:
            raise FileNotFoundError(f'no sources in {folder}')
        found = {s: definitions(s.read_text()) for s in sources}
        count = Counter(n for _, names in found.values() for n in names)
        lines = ['#include "pytorch_cpp_helper.hpp"\n']
        for source, (macros, names) in found.items():
            twice = sorted(n for n in names if count[n] > 1)
            included = source.rename(source.with_suffix('.cpp.inc')).name
            lines += [f'#define {n} {n}_of_{source.stem}\n' for n in twice]
            lines += [f'#include "{included}"\n']
            lines += [f'#undef {n}\n' for n in [*twice, *sorted(macros)]]
        (root / folder / 'all.cpp').write_text(''.join(lines))


def run(*words: str) -> None:
    """Run pip; if we are stopped, its compilers stop too."""
    process = subprocess.Popen([*PIP, *words], start_new_session=True)
    try:
        code = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        raise
    if code:
        raise subprocess.CalledProcessError(code, process.args)


def build(root: Path, out: str) -> None:
    """Let mmcv's own setup make the wheel."""
    os.environ['MMCV_WITH_OPS'] = '1'
    # Python's own flags ask for debug information: half of the memory.
    os.environ.setdefault('CFLAGS', '-O2 -g0')
    run('wheel', '--no-cache-dir', '--no-deps', '--no-build-isolation', '-w',
        out, str(root))


def main() -> None:
    """Fetch the sdist and build it, united first where that is possible."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('requirement', help='for example mmcv==2.1.0')
    parser.add_argument('out', help='folder for the wheel')
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    name = args.requirement.split('=')[0]
    cuda = torch.cuda.is_available() or os.environ.get('FORCE_CUDA') == '1'
    with tempfile.TemporaryDirectory() as work:
        run('download', '--no-deps', '--no-binary', name,
            '--no-build-isolation', '-d', f'{work}/sdist', args.requirement)
        sdist, = Path(work, 'sdist').iterdir()
        if not cuda:
            try:
                root = unpack(sdist, Path(work, 'united'))
                unite(root)
                return build(root, args.out)
            except (OSError, subprocess.CalledProcessError) as error:
                print(f'the united build failed ({error}); building the '
                      'files one by one', file=sys.stderr)
        build(unpack(sdist, Path(work, 'plain')), args.out)


if __name__ == '__main__':
    main()
