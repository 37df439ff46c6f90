"""Tables as text: readable in a terminal, valid as Markdown."""
from typing import Any, Sequence

__all__ = ['text_table']


def text_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return an aligned Markdown table.

    Args:
        header (Sequence[str]): Titles of the columns.
        rows (Sequence[Sequence]): One sequence of cells per row; numbers are
            to be formatted by the caller.

    Returns:
        str: One line per row, without a line break at the end; the first
        column is aligned left, the others right.

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
        padded = [row[0].ljust(widths[0])] + [
            cell.rjust(width)
            for cell, width in zip(row[1:], widths[1:], strict=True)
        ]
        lines.append('| ' + ' | '.join(padded) + ' |')
    dashes = ['-' * (width + 1) for width in widths]
    rule = [':' + dashes[0]] + [dash + ':' for dash in dashes[1:]]
    return '\n'.join([lines[0], '|' + '|'.join(rule) + '|', *lines[1:]])
