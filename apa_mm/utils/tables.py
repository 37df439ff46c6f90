"""Tables and lists as text."""
from typing import Any, Iterable, Sequence


def show(items: Iterable, most: int = 3) -> str:
    """Return the first items as text, with dots if there are more."""
    items = list(items)
    return ', '.join(map(str, items[:most])) + ', ...' * (len(items) > most)


def text_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table, its first column aligned left, others right.

    Example:
        >>> print(text_table(['layer', 'kappa'], [['stem', '1.02']]))
        | layer | kappa |
        |:------|------:|
        | stem  |  1.02 |
    """
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first, *others = zip(row, widths, strict=True)
        padded = [first[0].ljust(first[1])]
        padded += [cell.rjust(width) for cell, width in others]
        lines.append('| ' + ' | '.join(padded) + ' |')
    dashes = ['-' * (width + 1) for width in widths]
    rule = [':' + dashes[0]] + [dash + ':' for dash in dashes[1:]]
    return '\n'.join([lines[0], '|' + '|'.join(rule) + '|', *lines[1:]])
