"""Unpickling plain arrays from files that may come from anywhere."""
import io
import pickle
from typing import Any

import numpy as np

__all__ = ['load_arrays']

# What rebuilds an array; numpy 2 moved the module, so the function is taken
# from an array instead of being imported by a name.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED = {
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): np.dtype,
    ('numpy.core.multiarray', '_reconstruct'): _RECONSTRUCT,
    ('numpy._core.multiarray', '_reconstruct'): _RECONSTRUCT,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numbers, strings, bytes, containers and arrays of them."""

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed global; refuse everything else."""
        if (module, name) == ('_codecs', 'encode'):
            return _latin1_bytes
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f'{module}.{name} is not allowed') from None


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Stand in for ``codecs.encode``, which would run any codec."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'codec {encoding} is not allowed')
    return text.encode('latin1')


def load_arrays(data: bytes, name: str) -> Any:
    """Unpickle data that hold nothing but plain values and arrays.

    Python 2 strings are read as latin-1, as numpy's old pickles need it. An
    object that would run code is refused.

    Args:
        data (bytes): The pickle.
        name (str): Its file, for the message.

    Returns:
        Any: Its content.

    Raises:
        ValueError: If it is damaged or holds anything else.

    Example:
        >>> load_arrays(pickle.dumps({'a': np.arange(3)}), 'x')
        {'a': array([0, 1, 2])}
    """
    try:
        return _ArrayUnpickler(io.BytesIO(data), encoding='latin1').load()
    # A damaged pickle may raise nearly anything; the file is then of no use.
    except Exception as error:
        raise ValueError(
            f'{name} cannot be read: it must be a pickle of plain values and '
            f'numpy arrays, but unpickling says "{error}"; download it again '
            'from its original source') from None
