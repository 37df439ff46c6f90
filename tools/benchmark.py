#!/usr/bin/env python
"""Compare our parts with what they replace, on the same input, as ratios.

    python tools/benchmark.py all
    python tools/benchmark.py nms masks --json benchmark.json

Both sides run in one process, alternating; figures are medians. Read the
ratios: seconds depend on the machine and on what else it does.
"""
import argparse
import importlib
import json
import os
import platform
import time
from pathlib import Path

import torch

COLUMNS = ('case', 'ours', 'theirs', 'ratio', 'unit', 'note')


def parts() -> list:
    """Return the names of the benchmarks, one per file of benchmarks/."""
    folder = Path(__file__).parent / 'benchmarks'
    return sorted(p.stem for p in folder.glob('[a-z]*.py'))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='+', choices=[*parts(), 'all'])
    parser.add_argument('--repeats', type=int, default=5,
                        help='runs per case of which the median counts')
    parser.add_argument('--quick', action='store_true',
                        help='leave out the long cases')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu',
                        help='where act and model run; gpu finds its own')
    parser.add_argument('--json', help='write all rows to this file')
    args = parser.parse_args()
    on_gpu = torch.cuda.is_available() or 'TRITON_INTERPRET' in os.environ
    if 'all' in args.parts:
        args.parts = [name for name in parts() if name != 'gpu' or on_gpu]
    if 'gpu' in args.parts and not on_gpu:
        parser.error('gpu: no CUDA device')
    if args.device == 'cuda':
        if not torch.cuda.is_available():
            parser.error('--device cuda: torch finds no CUDA device here')
        if not set(args.parts) <= {'act', 'model'}:
            parser.error('--device cuda is for the parts act and model')
    return args


def show(value: object) -> str:
    """Return a cell's text; numbers get three significant digits."""
    return f'{value:.3g}' if isinstance(value, float) else str(
        '' if value is None else value)


def print_table(title: str, rows: list) -> None:
    """Print the rows as a Markdown table."""
    print(f'\n### {title}\n')
    print('| ' + ' | '.join(COLUMNS) + ' |')
    print('|' + '---|' * len(COLUMNS))
    for row in rows:
        print('| ' + ' | '.join(show(row.get(c)) for c in COLUMNS) + ' |',
              flush=True)


def main() -> None:
    """Run the parts and print their tables."""
    args = parse_args()
    machine = (f'{platform.machine()}, {os.cpu_count()} cores, '
               f'{torch.get_num_threads()} threads, torch {torch.__version__}'
               f', {time.strftime("%Y-%m-%d")}')
    if args.device == 'cuda' or 'gpu' in args.parts and \
            torch.cuda.is_available():
        machine = f'{torch.cuda.get_device_name()}, {machine}'
    print(f'machine: {machine}')
    where = dict(device='cuda') if args.device == 'cuda' else {}
    results = {}
    for name in args.parts:
        module = importlib.import_module(f'benchmarks.{name}')
        results[name] = module.run(
            repeats=args.repeats, quick=args.quick, **where)
        print_table(module.TITLE, results[name])
    if args.json:
        path = Path(args.json)
        temporary = path.with_suffix('.tmp')
        temporary.write_text(
            json.dumps(dict(machine=machine, results=results), indent=1))
        temporary.replace(path)


if __name__ == '__main__':
    main()
