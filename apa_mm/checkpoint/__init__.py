"""Conversion, inspection and surgery of checkpoints."""
from apa_mm.surgery.replace import SwapReport, replace_activations
from apa_mm.weights import CheckpointError, RawCheckpoint, read_checkpoint

from .back import convert_back
from .convert import TARGETS, Conversion, convert
from .files import ConversionError, Converted, convert_file
from .inspection import Inspection, Pair, inspect_file, parameter_pairs
from .recognition import recognise
from .report import LoadReport
from .tables import TABLES
from .values import Start
from .writing import write_checkpoint

__all__ = [
    'TABLES', 'TARGETS', 'CheckpointError', 'Conversion', 'ConversionError',
    'Converted', 'Inspection', 'LoadReport', 'Pair', 'RawCheckpoint', 'Start',
    'SwapReport', 'convert', 'convert_back', 'convert_file', 'inspect_file',
    'parameter_pairs', 'read_checkpoint', 'recognise', 'replace_activations',
    'write_checkpoint']
