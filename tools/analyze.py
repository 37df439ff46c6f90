#!/usr/bin/env python
"""Measure and draw what networks have learned, after the paper's analyses.

    python tools/analyze.py attention CONFIG CHECKPOINT \
        --also BASELINE_CONFIG BASELINE_CHECKPOINT
    python tools/analyze.py report work_dirs/analysis

Each analysis writes metrics.json, a CSV and pictures to a new folder. Exit
code 2, and nothing written, if the input cannot be analysed.
"""
import sys

from apa_mm.analysis.command import build_parser, run
from apa_mm.analysis.errors import AnalysisError
from apa_mm.checkpoint import CheckpointError
from apa_mm.preflight.job import InputError


def main() -> int:
    """Run one analysis and print its table."""
    args = build_parser().parse_args()
    try:
        lines = run(args)
    except (AnalysisError, CheckpointError, InputError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print('\n'.join(lines))
    return 0


if __name__ == '__main__':
    sys.exit(main())
