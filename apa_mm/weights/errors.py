"""The exception of reading, converting and inspecting, and safe printing."""
from apa_mm.utils.checks import InputError


class CheckpointError(InputError):
    """A file or request that cannot be served; one printable sentence why."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    r"""Return a text with everything escaped that is not to be seen.

    Example:
        >>> printable('layer\x1b[2Jname\n')
        'layer\\x1b[2Jname\\n'
    """
    return ''.join(
        character if character.isprintable() else
        character.encode('unicode_escape').decode() for character in text)


def require(holds: bool, otherwise: str) -> None:
    """Raise a CheckpointError that says ``otherwise``, unless it holds."""
    if not holds:
        raise CheckpointError(otherwise)
