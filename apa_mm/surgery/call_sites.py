"""Find the places at which a block calls one of its modules.

A learnable activation holds state, so each call needs a module of its own.
Blocks written for ReLU often call one ``self.relu`` several times; where is
read off their source code, without running the model.
"""
import ast
import inspect
import textwrap
from types import FunctionType
from typing import Dict, List, NamedTuple, Optional, Tuple

from torch import nn

__all__ = ['CONTAINERS', 'CallSites', 'find_call_sites']

#: Containers whose parent calls their members, each where it is listed.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

#: Attributes that one place calls once, though the source does not show it.
#: mmcv's ConvModule calls its members in a loop over 'conv', 'norm', 'act';
#: our blocks fetch theirs by number.
ONE_SITE = (
    ('ConvModule', 'activate'),
    ('_ResidualBlock', 'act1'),
    ('_ResidualBlock', 'act2'),
    ('_ResidualBlock', 'act3'),
)
#: Functions that look at a module and do not call it.
_LOOKS = ('bool', 'callable', 'hasattr', 'id', 'isinstance', 'print', 'type')
#: Ways to reach members without naming them.
_DYNAMIC = ('_modules', 'children', 'modules', 'named_children',
            'named_modules')
_LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp,
          ast.GeneratorExp)
#: Giving the module a second name, which can be called any number of times.
_SECOND_NAMES = (ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.Tuple,
                 ast.List, ast.Dict)

_Functions = Dict[str, ast.AST]


class CallSites(NamedTuple):
    """Where the methods of a class use one of its modules.

    Attributes:
        count (int, optional): Uses along the longest path through
            ``forward``; None if it cannot be told: no source, a call in a
            loop, a second name for the module, a method that is called
            several times, or members reached by ``getattr``.
        places (dict): Method name -> {(line, column) in its source: number
            of the use, from 0}. Of two branches only one runs, so their uses
            have the same numbers.
    """

    count: Optional[int]
    places: Dict[str, Dict[Tuple[int, int], int]]


def find_call_sites(block: nn.Module, name: str) -> CallSites:
    """Find the uses of the attribute ``name`` in a block's forward pass.

    Follows methods and properties of the class and functions inside them.
    Handing the module to a function counts as one call.

    Args:
        block (nn.Module): The block.
        name (str): Name of the module in it, without a dot.

    Returns:
        CallSites: Number and places of the uses.

    Example:
        >>> from torchvision.models import resnet50
        >>> find_call_sites(resnet50().layer1[0], 'relu').count
        3
    """
    if any((cls.__name__, name) in ONE_SITE for cls in type(block).__mro__):
        return CallSites(1, {})
    finder = _Finder(type(block), name)
    finder.member('forward')
    unknown = finder.unknown or (finder.next == 0 and finder.dynamic)
    return CallSites(None if unknown else finder.next, finder.places)


def source_tree(function: FunctionType) -> ast.FunctionDef:
    """Parse a function's source; positions count from its first line.

    Raises:
        OSError: If there is no source.
        SyntaxError: If it is no whole statement.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return tree.body[0]


class _Finder:
    """Walks along a forward pass and numbers the uses of ``self.<name>``."""

    def __init__(self, cls: type, name: str) -> None:
        self.cls, self.name = cls, name
        self.next = 0
        self.unknown = False
        self.dynamic = False
        self.places: Dict[str, Dict[Tuple[int, int], int]] = {}
        self.active: List[str] = []

    def member(self, name: str) -> None:
        """Walk through a method or property that the class has."""
        self.dynamic |= name in _DYNAMIC
        function = getattr(self.cls, name, None)
        if isinstance(function, property):
            function = function.fget
        # A cycle of methods, or a method of nn.Module itself, adds nothing.
        if (not inspect.isfunction(function) or name in self.active
                or function is getattr(nn.Module, name, None)):
            return
        try:
            tree = source_tree(function)
        except (OSError, TypeError, SyntaxError):
            self.unknown = True
            return
        self.active.append(name)
        self.walk(tree.body, {})
        self.active.pop()

    def walk(self, body: List[ast.AST], functions: _Functions) -> None:
        """Walk through statements that run one after the other."""
        for node in body:
            if isinstance(node, ast.FunctionDef):
                functions = {**functions, node.name: node}
            else:
                self.visit(node, functions)

    def visit(self, node: ast.AST, functions: _Functions) -> None:
        """Walk through one statement or expression."""
        if isinstance(node, (ast.If, ast.IfExp)):
            self.visit(node.test, functions)
            start, ends = self.next, []
            for part in (node.body, node.orelse):
                self.next = start
                self.walk(
                    part if isinstance(part, list) else [part], functions)
                ends.append(self.next)
            self.next = max(ends)
            return
        start = self.next
        if isinstance(node, ast.Name) and node.id in functions:
            inner = {k: v for k, v in functions.items() if k != node.id}
            self.walk(functions[node.id].body, inner)
        else:
            self.parts(node, functions)
        if isinstance(node, _LOOPS) and self.next > start:
            self.unknown = True

    def parts(self, node: ast.AST, functions: _Functions) -> None:
        """Walk through the parts of a node; arguments before the call."""
        children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Call):
            children = children[1:] + children[:1]
            if _named(node.func) == 'getattr' and node.args:
                self.dynamic |= _named(node.args[0]) == 'self'
        for child in children:
            if not isinstance(child, ast.Attribute):
                self.visit(child, functions)
            elif _named(child.value) == 'self':
                self.reference(child, node)
            elif (isinstance(child.value, ast.Call)
                  and _named(child.value.func) == 'super'):
                self.parent(child.attr)
            else:
                self.visit(child, functions)

    def reference(self, node: ast.Attribute, where: ast.AST) -> None:
        """Follow one ``self.<attribute>``."""
        if node.attr != self.name:
            self.member(node.attr)
        elif isinstance(where, _SECOND_NAMES):
            self.unknown = True
        elif isinstance(where, (ast.Call, ast.keyword, ast.Return)):
            if not (isinstance(where, ast.Call)
                    and _named(where.func) in _LOOKS):
                self.use(node)

    def parent(self, name: str) -> None:
        """Follow ``super().<name>``; its uses cannot be written anew."""
        start = self.next
        owners = [cls for cls in self.cls.__mro__ if name in vars(cls)]
        for cls in owners[1:]:
            finder = _Finder(cls, self.name)
            finder.member(name)
            self.next += finder.next
            self.dynamic |= finder.dynamic
            self.unknown |= finder.unknown or self.next > start
            return

    def use(self, node: ast.Attribute) -> None:
        """Number a use; one place with two numbers cannot be split."""
        places = self.places.setdefault(self.active[-1], {})
        place = (node.lineno, node.col_offset)
        if places.setdefault(place, self.next) != self.next:
            self.unknown = True
        self.next += 1


def _named(node: ast.AST) -> Optional[str]:
    return node.id if isinstance(node, ast.Name) else None
