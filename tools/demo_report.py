#!/usr/bin/env python
"""Draw the demo's pictures and gather its numbers.

``run`` draws the pictures of one trained model and writes its record;
``join`` merges records into one metrics.json and prints them as a table.
"""
import argparse
import json
import time
from pathlib import Path

from demo.pictures import load_detector, save_predictions, save_sites
from demo.report import format_table, read_metrics, run_record, write_json
from mmengine.config import DictAction


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    actions = parser.add_subparsers(dest='action', required=True)
    run = actions.add_parser('run', help='report one trained model')
    run.add_argument('config', help='config file')
    run.add_argument('checkpoint', help='checkpoint file')
    run.add_argument('--eval-dir', required=True, help="test's --work-dir")
    run.add_argument('--out', required=True, help='folder of the report')
    run.add_argument(
        '--seconds', nargs='*', action=DictAction, default={},
        help='time of the phases so far, e.g. data=5 train=300')
    join = actions.add_parser('join', help='merge and print the records')
    join.add_argument('runs', nargs='+', help='folders of reports')
    join.add_argument('--out', required=True, help='metrics.json to write')
    return parser.parse_args()


def report_run(args: argparse.Namespace) -> None:
    """Draw the pictures of one run, then write its record."""
    begin = time.perf_counter()
    metrics = read_metrics(args.eval_dir)
    cfg, model = load_detector(args.config, args.checkpoint)
    save_predictions(cfg, model, f'{args.out}/predictions.png')
    num_pairs = save_sites(model, args.checkpoint,
                           f'{args.out}/kappa_lambda.png')
    seconds = dict(args.seconds, pictures=time.perf_counter() - begin)
    write_json(run_record(cfg, metrics, num_pairs, seconds),
               f'{args.out}/metrics.json')


def join_runs(args: argparse.Namespace) -> None:
    """Merge the records of several runs and print them."""
    runs = {
        Path(run).name: json.loads(Path(run, 'metrics.json').read_text())
        for run in args.runs
    }
    write_json(runs, args.out)
    print(format_table(runs))


if __name__ == '__main__':
    arguments = parse_args()
    try:
        {'run': report_run, 'join': join_runs}[arguments.action](arguments)
    except (ValueError, OSError) as error:
        raise SystemExit(f'error: {error}') from None
