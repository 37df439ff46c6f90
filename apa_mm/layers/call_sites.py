"""Count the places at which a block calls one of its modules.

A learnable activation holds state, so each call needs a module of its own.
Blocks written for ReLU often call one ``self.relu`` several times; how often
is read off their source code, without running the model.
"""
import ast
import inspect
import textwrap
from typing import Dict, List, Optional, Sequence, Tuple

from torch import nn

__all__ = ['CONTAINERS', 'KNOWN_SITES', 'count_calls']

#: Containers whose parent calls their members, each where it is listed.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

#: Calls that the source does not show: class name and attribute -> calls.
#: mmcv's ConvModule calls its members in a loop over 'conv', 'norm', 'act';
#: our blocks fetch theirs by number, and each is one site by construction.
KNOWN_SITES: Dict[Tuple[str, str], int] = {
    ('ConvModule', 'activate'): 1,
    ('_ResidualBlock', 'act1'): 1,
    ('_ResidualBlock', 'act2'): 1,
    ('_ResidualBlock', 'act3'): 1,
}

#: Functions that look at a module and do not call it.
_LOOKS = ('bool', 'callable', 'hasattr', 'id', 'isinstance', 'print', 'type')
#: Ways to reach members without naming them.
_DYNAMIC = ('_modules', 'children', 'modules', 'named_children',
            'named_modules')

_Functions = Dict[str, ast.AST]


def count_calls(parent: nn.Module, name: str) -> Optional[int]:
    """Return how often ``forward`` uses the attribute ``name`` at most.

    Follows methods and properties of the class and functions inside them. Of
    two branches the one with more calls counts, since only one of them runs.
    Handing the module to a function counts as one call.

    Args:
        parent (nn.Module): The block.
        name (str): Name of the module in it, without a dot.

    Returns:
        int | None: Number of calls; None if it cannot be told: no source, a
        call in a loop, a second name for the module, or members reached by
        ``getattr``.

    Example:
        >>> from torchvision.models import resnet50
        >>> count_calls(resnet50().layer1[0], 'relu')
        3
    """
    for cls in type(parent).__mro__:
        if (cls.__name__, name) in KNOWN_SITES:
            return KNOWN_SITES[cls.__name__, name]
    counter = _Counter(type(parent), name)
    count = counter.member('forward')
    return None if count == 0 and counter.dynamic else count


class _Counter:
    """Counts uses of ``self.<name>`` along the methods of a class."""

    def __init__(self, cls: type, name: str) -> None:
        self.cls, self.name = cls, name
        self.dynamic = False
        self.active: List[str] = []

    def member(self, name: str) -> Optional[int]:
        """Count in a method or property that the class has."""
        self.dynamic |= name in _DYNAMIC
        function = getattr(self.cls, name, None)
        if isinstance(function, property):
            function = function.fget
        # A cycle of methods, or a method of nn.Module itself, adds nothing.
        if (not inspect.isfunction(function) or name in self.active
                or function is getattr(nn.Module, name, None)):
            return 0
        try:
            text = textwrap.dedent(inspect.getsource(function))
            tree = ast.parse(text).body[0]
        except (OSError, TypeError, SyntaxError):
            return None
        self.active.append(name)
        count = self.block(tree.body, {})
        self.active.pop()
        return count

    def block(self, body: Sequence[ast.AST],
              functions: _Functions) -> Optional[int]:
        """Count in statements that run one after the other."""
        counts = []
        for node in body:
            if isinstance(node, ast.FunctionDef):
                functions = {**functions, node.name: node}
                continue
            counts.append(self.node(node, functions))
        return _add(counts)

    def node(self, node: ast.AST, functions: _Functions) -> Optional[int]:
        """Count in one statement or expression."""
        if isinstance(node, (ast.If, ast.IfExp)):
            branches = [
                self.block(part if isinstance(part, list) else [part],
                           functions) for part in (node.body, node.orelse)
            ]
            most = None if None in branches else max(branches)
            return _add([self.node(node.test, functions), most])
        inside = self.children(node, functions)
        if isinstance(node, (ast.For, ast.While, ast.ListComp,
                             ast.GeneratorExp)):
            # How often a loop runs is not known, unless it calls nothing.
            return 0 if inside == 0 else None
        return inside

    def children(self, node: ast.AST, functions: _Functions) -> Optional[int]:
        """Count in a node itself and in all parts of it."""
        if isinstance(node, ast.Name) and node.id in functions:
            inner = {k: v for k, v in functions.items() if k != node.id}
            return self.block(functions[node.id].body, inner)
        if isinstance(node, ast.Call) and _named(node.func) == 'getattr':
            self.dynamic |= bool(node.args) and _named(node.args[0]) == 'self'
        counts = []
        for child in ast.iter_child_nodes(node):
            if (isinstance(child, ast.Attribute)
                    and _named(child.value) == 'self'):
                counts.append(self.reference(child.attr, node))
            else:
                counts.append(self.node(child, functions))
        return _add(counts)

    def reference(self, attribute: str, where: ast.AST) -> Optional[int]:
        """Count what one ``self.<attribute>`` stands for."""
        if attribute != self.name:
            return self.member(attribute)
        if isinstance(where, (ast.Call, ast.keyword, ast.Return)):
            looks = (isinstance(where, ast.Call)
                     and _named(where.func) in _LOOKS)
            return 0 if looks else 1
        # A second name for the module can be called any number of times.
        second = (ast.Assign, ast.AnnAssign, ast.Tuple, ast.List, ast.Dict)
        return None if isinstance(where, second) else 0


def _named(node: ast.AST) -> Optional[str]:
    return node.id if isinstance(node, ast.Name) else None


def _add(counts: Sequence[Optional[int]]) -> Optional[int]:
    return None if None in counts else sum(counts)
