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
    sides = '<' + '>' * (len(widths) - 1)
    lines = ['| ' + ' | '.join(f'{cell:{side}{width}}' for cell, side, width
                               in zip(row, sides, widths, strict=True)) + ' |'
             for row in cells]
    dashes = ['-' * (width + 1) for width in widths]
    rule = [':' + dashes[0]] + [dash + ':' for dash in dashes[1:]]
    return '\n'.join([lines[0], '|' + '|'.join(rule) + '|', *lines[1:]])
