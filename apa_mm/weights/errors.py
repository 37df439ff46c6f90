"""The one exception of conversion and inspection."""

__all__ = ['CheckpointError']


class CheckpointError(ValueError):
    """A file or request that cannot be served; one sentence says why."""
