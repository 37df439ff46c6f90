"""Look into a pickle without building anything it names.

Every class and function in it becomes an inert stand-in, so nothing is
imported and nothing of the file runs. What is left is what the file claims:
which globals it wants, how large its storages and tensors are.
"""
import pickle
from typing import IO, Any, Dict, List, Set

from apa_mm.weights.errors import CheckpointError

__all__ = ['PickleScan', 'scan_legacy', 'scan_pickle']

#: First object in a file of torch before 1.6, which had no zip archive.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_ITEM_SIZES = dict(
    DoubleStorage=8,
    FloatStorage=4,
    HalfStorage=2,
    BFloat16Storage=2,
    LongStorage=8,
    IntStorage=4,
    ShortStorage=2,
    ComplexDoubleStorage=16,
    ComplexFloatStorage=8)
_HUGE = 2**62
#: Functions that make memory out of a number in the pickle.
_ALLOCATING = ('_reconstruct', 'ndarray', 'bytearray', 'bytes')
#: Functions that take (storage, offset, size, ...).
_TENSORS = ('_rebuild_tensor', '_rebuild_tensor_v2', '_rebuild_tensor_v3')


class PickleScan:
    """Claims of one or several pickles.

    Attributes:
        globals (set[str]): Full names of classes and functions named.
        storages (dict[str, int]): Bytes of each storage, by its key.
        tensors (list[int]): Bytes of each tensor.
        allocations (list[int]): Further memory asked for, in items.
    """

    def __init__(self) -> None:
        self.globals: Set[str] = set()
        self.storages: Dict[str, int] = {}
        self.tensors: List[int] = []
        self.allocations: List[int] = []

    def record_storage(self, pid: Any) -> 'Inert':
        """Take note of a persistent id ('storage', type, key, place, n)."""
        well_formed = (
            isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == 'storage'
            and isinstance(pid[4], int) and pid[4] >= 0)
        if not well_formed:
            raise CheckpointError('it refers to data in a way that torch.save '
                                  'does not')
        item_size = _ITEM_SIZES.get(getattr(pid[1], '__name__', ''), 1)
        storage = Inert()
        storage.item_size = item_size
        self.storages[str(pid[2])] = pid[4] * item_size
        return storage

    def record_call(self, name: str, args: tuple) -> None:
        """Take note of what a call would allocate."""
        if name in _TENSORS and len(args) > 2:
            item_size = getattr(args[0], 'item_size', 1)
            self.tensors.append(_items([args[2]]) * item_size)
        elif name in _ALLOCATING:
            self.allocations.append(_items(args))


class Inert:
    """Stand-in for an instance of any class: takes all, does nothing."""

    item_size: int = 1

    def __new__(cls, *args: Any, **kwargs: Any) -> 'Inert':
        """Make an empty instance whatever the arguments."""
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take any arguments."""

    def __call__(self, *args: Any, **kwargs: Any) -> 'Inert':
        """Return another stand-in."""
        return Inert()

    def __setstate__(self, state: Any) -> None:
        """Drop the state."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Drop the item."""

    def append(self, value: Any) -> None:
        """Drop the value."""

    def extend(self, values: Any) -> None:
        """Drop the values."""

    def add(self, value: Any) -> None:
        """Drop the value."""


# pickle._Unpickler is the form in Python; the one in C reserves memory for
# whatever memo index a file names.
class _Scanner(pickle._Unpickler):

    def __init__(self, stream: IO[bytes], scan: PickleScan) -> None:
        super().__init__(stream, encoding='utf-8', errors='surrogateescape')
        self.scan = scan

    def find_class(self, module: str, name: str) -> type:
        self.scan.globals.add(f'{module}.{name}')
        scan = self.scan

        class StandIn(Inert):

            def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
                scan.record_call(name, args)
                return object.__new__(cls)

        StandIn.__name__ = name
        return StandIn

    def persistent_load(self, pid: Any) -> Inert:
        return self.scan.record_storage(pid)


def scan_pickle(stream: IO[bytes], scan: PickleScan) -> Any:
    """Scan one pickle and leave the stream behind it.

    Args:
        stream (IO[bytes]): Where the pickle starts.
        scan (PickleScan): Takes the claims.

    Returns:
        Any: The object, with stand-ins for all that is not plain data.

    Raises:
        CheckpointError: If it is no whole pickle.
    """
    try:
        return _Scanner(stream, scan).load()
    except CheckpointError:
        raise
    except Exception as error:
        # Hostile bytes can make the unpickler fail in any way it knows.
        raise CheckpointError(
            'it is truncated or damaged, or no file of torch.save '
            f'({type(error).__name__} while reading its pickle)') from None


def scan_legacy(stream: IO[bytes]) -> PickleScan:
    """Scan a file of torch before 1.6: five pickles, then the data.

    Args:
        stream (IO[bytes]): Start of the file.

    Returns:
        PickleScan: The claims.

    Raises:
        CheckpointError: If the file has another form.
    """
    scan = PickleScan()
    if scan_pickle(stream, scan) != LEGACY_MAGIC:
        names = ', '.join(sorted(scan.globals)[:3])
        raise CheckpointError(
            'it is a bare pickle' + (f' that calls {names}' if names else '') +
            ', not a file of torch.save, and pickles can run code; ask for '
            'a file made by torch.save(model.state_dict(), ...)')
    for _ in range(4):  # protocol, system, the object, its storage keys
        scan_pickle(stream, scan)
    return scan


def _items(values: Any) -> int:
    """Return the product of all sizes in a nest of tuples and lists."""
    sizes, stack = [], list(values)
    while stack:
        value = stack.pop()
        if isinstance(value, (tuple, list)):
            stack.extend(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            sizes.append(abs(value))
    if 0 in sizes:
        return 0
    product = 1
    for size in sizes:
        product *= size
        if product > _HUGE:  # a long product of large numbers takes minutes
            break
    return product
