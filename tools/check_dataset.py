#!/usr/bin/env python
"""Report what is in a config's data sets and what is wrong with them.

    python tools/check_dataset.py configs/det/lvis/CONFIG.py

Reads the annotation files and lists the image folders; trains nothing. Exit
code 1 if a problem was found.
"""
import argparse

from mmengine.config import Config, DictAction

from apa_mm.preflight.job import report_datasets

COLUMNS = ('images', 'annotations', 'unlearned_annotations', 'categories',
           'missing_images', 'images_without_annotations',
           'unused_categories', 'rare', 'common', 'frequent')


def main() -> int:
    """Print the report; return 1 if there is a problem."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of a config')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction,
        help='settings to override, such as data_root=/data/lvis_v1/')
    args = parser.parse_args()
    try:
        cfg = Config.fromfile(args.config)
    except (OSError, SyntaxError, ImportError) as error:
        parser.error(f'config {args.config} cannot be read: {error}')
    cfg.merge_from_dict(args.cfg_options or {})
    report = report_datasets(cfg)
    for row in report.rows:
        print(f'{row["split"]}: {row["file"]}')
        for name in COLUMNS:
            if name in row:
                print(f'  {name.replace("_", " "):<28}{row[name]:>12}')
    for warning in report.warnings:
        print(f'WARNING: {warning}')
    for problem in report.problems:
        print(f'PROBLEM: {problem}')
    print(f'{len(report.problems)} problem(s)')
    return bool(report.problems)


if __name__ == '__main__':
    raise SystemExit(main())
