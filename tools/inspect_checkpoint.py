"""Say what checkpoints are and list their kappa and lambda."""
import argparse
import sys

from apa_mm.checkpoint import CheckpointError, inspect_file
from apa_mm.analysis.parameters import plot_parameters


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('files', nargs='+', metavar='FILE', help='checkpoints')
    add('--plot',
        metavar='PNG',
        help='draw kappa and lambda over depth, all files in one picture')
    add('--ema', action='store_true', help='look at the moving average')
    add('--no-table', action='store_true', help='leave out the table')
    return parser.parse_args()


def main() -> int:
    """Inspect each file and print what was found."""
    args = parse_args()
    try:
        found = [inspect_file(path, args.ema) for path in args.files]
        for inspection in found:
            print(inspection)
            if not args.no_table:
                print(inspection.table())
        if args.plot:
            plot_parameters(found, args.plot)
            print(f'wrote {args.plot}')
    except CheckpointError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
