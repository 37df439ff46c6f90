"""Reading weights from files nobody vouches for, and comparing them."""
from .errors import CheckpointError
from .reading import RawCheckpoint, read_checkpoint

__all__ = ['CheckpointError', 'RawCheckpoint', 'read_checkpoint']
