"""The table of defaults in APAResNet's docstring beside a library's ResNet."""
import inspect
import re

from apa_mm.backbones import APAResNet

HERE, MMDET, MMPRETRAIN_OR_MMPOSE, MMSEGMENTATION = range(4)


def check_defaults(parent: type, column: int) -> None:
    """Check that the table names every default that is not the parent's.

    Args:
        parent (type): A ResNet, all of whose arguments ours must have.
        column (int): The library's place in the table.
    """
    ours = inspect.signature(APAResNet).parameters
    theirs = inspect.signature(parent).parameters
    table = re.findall(
        r'^ *(\w+) +(\S+) +(\w+) +(\w+|\(3, \)) +(\w+)$',
        inspect.getdoc(APAResNet), re.MULTILINE)
    table = {name: row for name, *row in table if name in ours}
    assert set(theirs) <= set(ours)
    differ = {
        name
        for name, p in theirs.items() if p.default != ours[name].default
        and name not in ('init_cfg', 'depth', 'stem_channels')
    }
    assert differ == {
        name
        for name, row in table.items() if row[column] != row[HERE]
    }
