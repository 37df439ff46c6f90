"""The folder tools/demo is found as its tools find it."""
import sys
from pathlib import Path

# Last: tools/test.py must not stand for a module of that name.
sys.path.append(str(Path(__file__).parents[2] / 'tools'))
