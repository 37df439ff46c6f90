#!/usr/bin/env python
"""Train configs with several seeds and print mean and standard deviation."""
import argparse
import json
import os.path as osp

from mmengine.device import get_device

from apa_mm.engine.compare import available_cores, plan_runs, run_all
from apa_mm.engine.compare_report import (choose_columns, format_csv,
                                          format_table, plot_bars, summarize)
from apa_mm.engine.launch_options import add_cfg_options


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='Finished runs are kept: start the same command again to go '
        'on after an interruption, or with more seeds to add some.')
    parser.add_argument('configs', nargs='+', help='config files')
    parser.add_argument(
        '--seeds', type=int, default=5, help='seeds 0 to N-1 (default: 5)')
    parser.add_argument(
        '--work-dir',
        default='work_dirs/compare',
        help='folder for runs, compare.json, compare.csv and compare.png')
    parser.add_argument(
        '--workers',
        type=int,
        help='runs at a time (default: one per CPU core, or one on a GPU)')
    parser.add_argument(
        '--metrics', nargs='+', help='metrics to show, e.g. shot/few')
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    """Compare, print the table and write the files."""
    args = parse_args()
    workers = args.workers
    if workers is None:
        workers = available_cores() if get_device() == 'cpu' else 1
    runs = plan_runs(args.configs, args.seeds, args.work_dir,
                     args.cfg_options)
    results = run_all(
        runs,
        workers=workers,
        cfg_options=args.cfg_options,
        report=lambda line: print(line, flush=True))
    summary = summarize([run.variant for run in runs], results)
    columns = choose_columns(summary, args.metrics)
    print(f'\nmean ± standard deviation, seeds 0 to {args.seeds - 1}')
    print(format_table(summary, columns))
    path = osp.join(args.work_dir, 'compare')
    with open(path + '.json', 'w', encoding='utf-8') as file:
        json.dump(
            {variant: {name: cell._asdict() for name, cell in cells.items()}
             for variant, cells in summary.items()}, file, indent=2)
    with open(path + '.csv', 'w', encoding='utf-8') as file:
        file.write(format_csv(summary))
    plot_bars(summary, columns, path + '.png')
    print(f'\nwritten: {path}.json, {path}.csv, {path}.png')


if __name__ == '__main__':
    try:
        main()
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f'error: {error}') from error
