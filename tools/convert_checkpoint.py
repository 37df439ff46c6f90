"""Convert a checkpoint of another code so that our models load all of it."""
import argparse
import sys

from apa_mm.checkpoint import (TARGETS, CheckpointError, ConversionError,
                               Start, convert_file)
from apa_mm.surgery.equivalents import RELU_KAPPA


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='Exit code 2, and nothing written, if the file is refused.')
    add = parser.add_argument
    add('src', help='file of torch.save or safetensors')
    add('dst', help='file to write; .safetensors decides the format')
    add('--to',
        choices=(*TARGETS, 'authors'),
        required=True,
        help="what it is for; 'authors': their names for a network of ours")
    add('--config', help='config whose model must take every tensor')
    add('--allow-missing',
        action='store_true',
        help='write it although tensors are missing or left over')
    add('--init',
        choices=('equivalent', 'random', 'plain'),
        default='equivalent',
        help='kappa and lambda of networks that have none: the same '
        "function as before, the paper's ranges, or none at all")
    add('--act',
        choices=('relu', 'silu', 'gelu'),
        default='relu',
        help="activation of such a network's units, for --init equivalent")
    add('--relu-kappa',
        type=float,
        default=RELU_KAPPA,
        help='kappa that stands for ReLU (default: %(default)g)')
    add('--seed', type=int, default=0, help='for --init random')
    add('--ema', action='store_true', help='take the moving average')
    add('--hash-suffix',
        action='store_true',
        help='add 8 digits of the SHA-256 to the name, as publish_model does')
    add('--write-config', help='write the config lines to this file')
    return parser.parse_args()


def main() -> int:
    """Run the conversion and print its report."""
    args = parse_args()
    try:
        done = convert_file(
            args.src,
            args.dst,
            args.to,
            config=args.config,
            allow_missing=args.allow_missing,
            start=Start(args.init, args.act, args.relu_kappa, args.seed),
            averaged=args.ema,
            hash_suffix=args.hash_suffix,
            config_path=args.write_config)
    except CheckpointError as error:
        if isinstance(error, ConversionError):
            print(error.report)
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(done.report)
    print(f'wrote {done.path}')
    if done.config is not None:
        print(f'\nconfig:\n{done.config}', end='')
    return 0


if __name__ == '__main__':
    sys.exit(main())
