"""What a conversion did to every tensor, and what it could not explain."""
from collections import Counter
from dataclasses import dataclass, field
from typing import Dict, List, Tuple

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
    def origins(self) -> Dict[str, str]:
        """dict[str, str]: Names in the file by those in the result."""
        return {new: old for old, new in self.mapped.items()}

    def strip(self, prefix: str) -> None:
        """Take a prefix off all names of the result."""
        self.mapped = {k: v.removeprefix(prefix)
                       for k, v in self.mapped.items()}
        self.missing = [name.removeprefix(prefix) for name in self.missing]
        self.reshaped, self.mismatched, self.added = (
            {k.removeprefix(prefix): v for k, v in part.items()}
            for part in (self.reshaped, self.mismatched, self.added))

    @property
    def ok(self) -> bool:
        """bool: Whether nothing is missing, left over or of another shape."""
        return not (self.missing or self.unexpected or self.mismatched)

    def summary(self) -> Dict[str, int]:
        """Return the length of each list, for ``meta``."""
        return {name: len(getattr(self, name)) for name in (
            'mapped', 'renamed', 'reshaped', 'added', 'dropped', 'missing',
            'unexpected')}

    def __str__(self) -> str:
        counts = ', '.join(f'{n} {name}' for name, n in self.summary().items())
        lines = [f'{self.source} -> {self.target}: {counts}']
        sections = {
            'missing': self.missing,
            'unexpected': self.unexpected,
            'reshaped': [f'{name}: {old} -> {new}'
                         for name, (old, new) in self.reshaped.items()],
            'of another shape': [
                f'{name}: {found}, expected {wanted}'
                for name, (found, wanted) in self.mismatched.items()],
            'added': _counted(self.added), 'dropped': _counted(self.dropped)}
        for title, entries in sections.items():
            if entries:
                lines.append(f'{title} ({len(entries)}):')
                lines += [f'  {entry}' for entry in entries]
            elif title in ('missing', 'unexpected', 'reshaped'):
                lines.append(f'{title}: none')
        lines += [f'note: {note}' for note in self.notes]
        return '\n'.join(map(printable, lines))


def _counted(reasons: Dict[str, str]) -> List[str]:
    return [f'{n} x {text}' for text, n in Counter(reasons.values()).items()]
