"""Evaluate a checkpoint of a detector or a classifier by its config."""
import argparse

from apa_mm.engine.distributed import leave_group
from apa_mm.engine.launch import test
from apa_mm.engine.launch_options import add_common_options
from apa_mm.preflight.job import InputError


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    add_common_options(parser)
    parser.add_argument('--out', help='.pkl file for the predictions')
    parser.add_argument(
        '--show', action='store_true', help='show predictions in a window')
    parser.add_argument(
        '--show-dir', help='folder for images with predictions')
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds that a window stays')
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation')
    return parser.parse_args()


if __name__ == '__main__':
    try:
        test(**vars(parse_args()), merge_views='apa_mm.LargeVocabTTAModel')
        leave_group()
    except InputError as error:
        raise SystemExit(f'error: {error}') from None
