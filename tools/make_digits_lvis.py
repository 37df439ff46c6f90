#!/usr/bin/env python
"""Write Digits-LVIS, the long-tailed set of real handwritten digits."""
import argparse
from dataclasses import fields

from demo import DigitsLVISSettings, make_digits_lvis


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--out', default='data/digits_lvis', help='folder')
    for field in fields(DigitsLVISSettings):
        name = '--' + field.name.replace('_', '-')
        if field.default is False:
            parser.add_argument(name, action='store_true',
                                help='label everything, not as LVIS does')
            continue
        parser.add_argument(
            name, type=type(field.default), default=field.default,
            help='see demo.DigitsLVISSettings')
    return parser.parse_args()


if __name__ == '__main__':
    args = vars(parse_args())
    try:
        make_digits_lvis(args.pop('out'), DigitsLVISSettings(**args))
    except (ValueError, OSError) as error:
        raise SystemExit(f'error: {error}') from None
