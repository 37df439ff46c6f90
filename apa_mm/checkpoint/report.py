"""What a conversion did to every tensor, and what it could not explain."""
from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, Iterable, List, Tuple

from apa_mm.weights.errors import printable

from .architecture import Shape


@dataclass
class LoadReport:
    """Account of a conversion: every tensor of the file is in it once.

    Of two shapes the first was found; the second is the result's or expected.
    """

    source: str  # name of the key table
    target: str  # what was asked for
    # By name in the file: name in the result; why it was left out.
    mapped: Dict[str, str] = field(default_factory=dict)
    dropped: Dict[str, str] = field(default_factory=dict)
    # By name in the result.
    reshaped: Dict[str, Tuple[Shape, Shape]] = field(default_factory=dict)
    mismatched: Dict[str, Tuple[Shape, Shape]] = field(default_factory=dict)
    added: Dict[str, str] = field(default_factory=dict)  # what it was set to
    # What the target has and the file lacks; what nothing explains.
    missing: List[str] = field(default_factory=list)
    unexpected: List[str] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)

    @property
    def renamed(self) -> Dict[str, str]:
        """dict[str, str]: The entries of ``mapped`` whose name changed."""
        return {old: new for old, new in self.mapped.items() if old != new}

    @property
    def ok(self) -> bool:
        """bool: Whether nothing is missing, left over or of another shape."""
        return not (self.missing or self.unexpected or self.mismatched)

    def summary(self) -> Dict[str, int]:
        """Return the length of each list, for ``meta``."""
        return {
            name: len(getattr(self, name))
            for name in ('mapped', 'renamed', 'reshaped', 'added', 'dropped',
                         'missing', 'unexpected')
        }

    def __str__(self) -> str:
        counts = ', '.join(f'{n} {name}' for name, n in self.summary().items())
        reshaped = [f'{name}: {old} -> {new}'
                    for name, (old, new) in self.reshaped.items()]
        lines = [f'{self.source} -> {self.target}: {counts}']
        for title, entries in (('missing', self.missing),
                               ('unexpected', self.unexpected),
                               ('reshaped', reshaped)):
            lines += _section(title, entries) or [f'{title}: none']
        lines += _section('of another shape', [
            f'{name}: {found}, expected {wanted}'
            for name, (found, wanted) in self.mismatched.items()
        ])
        lines += _section('added', _counted(self.added.values()))
        lines += _section('dropped', _counted(self.dropped.values()))
        lines += [f'note: {note}' for note in self.notes]
        return '\n'.join(map(printable, lines))


def _section(title: str, entries: List[str]) -> List[str]:
    if not entries:
        return []
    return [f'{title} ({len(entries)}):'] + [f'  {e}' for e in entries]


def _counted(reasons: Iterable[str]) -> List[str]:
    return [f'{n} x {reason}' for reason, n in Counter(reasons).items()]
