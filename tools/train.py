"""Train a detector or a classifier by its config."""
import argparse

from apa_mm.engine.distributed import leave_group
from apa_mm.engine.launch import train
from apa_mm.engine.launch_options import add_common_options
from apa_mm.preflight.job import InputError


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    add_common_options(parser)
    parser.add_argument(
        '--amp',
        action='store_true',
        help='mixed precision (bfloat16 without a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by the config's base batch size")
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='checkpoint to resume from; without a path the latest one of '
        'the work directory')
    return parser.parse_args()


if __name__ == '__main__':
    try:
        train(**vars(parse_args()))
        leave_group()
    except InputError as error:
        raise SystemExit(f'error: {error}') from None
