"""Find in a block's source the places at which it calls one of its modules.

A learnable activation holds state, so each of these calls needs its own.
"""
import ast
import inspect
import textwrap
from typing import Dict, FrozenSet, List, NamedTuple, Optional, Set, Tuple

from torch import nn

from apa_mm.layers.activation import AGLU

from .equivalents import kind_of

#: Containers whose parent calls their members, each where it is listed.
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)

#: Called once, though in a loop over 'conv', 'norm' and 'act'. Blocks of ours
#: say so by a class attribute ``called_once``.
ONE_SITE = ('ConvModule', 'activate')
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
    """Where a block uses one of its modules.

    Of two branches only one runs, so their uses have the same numbers.
    """

    #: Uses along the longest path through ``forward``; None without source,
    #: in a loop, or if the module has a second name or is got by ``getattr``.
    count: Optional[int]
    #: Other modules -> number, from 0, of the use after their call.
    marks: Dict[str, int] = {}
    #: Uses with no such call since the use before, or since the start.
    chained: FrozenSet[int] = frozenset()
    #: Whether some use can be told by neither.
    unmarked: bool = False


def find_call_sites(block: nn.Module, name: str) -> CallSites:
    """Find the uses of ``self.<name>`` in a block's forward pass.

    Methods, properties and inner functions are followed; handing the module
    to a function counts as one call.

    Example:
        >>> from torchvision.models import resnet50
        >>> sites = find_call_sites(resnet50().layer1[1], 'relu')
        >>> sites.count, sites.marks['conv1'], sites.marks['bn3']
        (3, 0, 2)
    """
    if name in getattr(type(block), 'called_once', ()) or any(
            (cls.__name__, name) == ONE_SITE for cls in type(block).__mro__):
        return CallSites(1)
    finder = _Finder(block, name)
    finder.member('forward')
    if finder.unknown or (finder.state.next == 0 and finder.dynamic):
        return CallSites(None)
    if finder.state.next == 0 and isinstance(block, CONTAINERS):
        return CallSites(1)
    return finder.result()


class _State(NamedTuple):
    """Where a path through ``forward`` stands.

    ``opened`` are modules that were or may have been called since the last
    use, ``sure`` those that were on every path; ``last`` are the numbers that
    the last use can have, -1 for the start.
    """

    next: int
    opened: FrozenSet[str]
    sure: FrozenSet[str]
    last: FrozenSet[int]


def _join(one: _State, two: _State) -> _State:
    return _State(max(one.next, two.next), one.opened | two.opened,
                  one.sure & two.sure, one.last | two.last)


class _Finder:
    """Walks along a forward pass and numbers the uses of ``self.<name>``."""

    def __init__(self, block: nn.Module, name: str) -> None:
        self.cls, self.name = type(block), name
        # Lists are not called, and activations may be replaced later.
        self.modules = {
            key for key, child in block._modules.items()
            if isinstance(child, nn.Module)
            and not isinstance(child, (*CONTAINERS[1:], AGLU))
            and kind_of(child) is None
        }
        self.state = _State(0, frozenset(), frozenset(), frozenset([-1]))
        self.unknown = False
        self.dynamic = False
        self.marks: Dict[str, Set[int]] = {}
        self.uses: List[_State] = []
        self.active: List[Tuple[type, str]] = []

    def result(self) -> CallSites:
        marks = {key: min(numbers) for key, numbers in self.marks.items()
                 if len(numbers) == 1}
        chained = [use for use in self.uses if not use.sure & set(marks)]
        return CallSites(self.state.next, marks,
                         frozenset(use.next for use in chained),
                         any(use.last != {use.next - 1} for use in chained))

    def member(self, name: str, after: Optional[type] = None) -> None:
        """Walk through a method or property, of a parent of ``after``."""
        self.dynamic |= name in _DYNAMIC
        mro = self.cls.__mro__
        if after is not None:
            mro = mro[mro.index(after) + 1:]
        owner = next((cls for cls in mro if name in vars(cls)), nn.Module)
        function = vars(owner).get(name)
        if isinstance(function, property):
            function = function.fget
        # A cycle of methods, or a method of nn.Module itself, adds nothing.
        if (not inspect.isfunction(function) or owner is nn.Module
                or (owner, name) in self.active):
            return
        try:
            source = textwrap.dedent(inspect.getsource(function))
            body = ast.parse(source).body[0].body
        except (OSError, TypeError, SyntaxError):
            self.unknown = True
            return
        self.active.append((owner, name))
        self.walk(body, {})
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
            start, ends = self.state, []
            for part in (node.body, node.orelse):
                self.state = start
                self.walk(part if isinstance(part, list) else [part],
                          functions)
                ends.append(self.state)
            self.state = _join(*ends)
            return
        start = self.state
        if isinstance(node, ast.Name) and node.id in functions:
            others = {k: v for k, v in functions.items() if k != node.id}
            self.walk(functions[node.id].body, others)
        else:
            self.parts(node, functions)
        if isinstance(node, (*_LOOPS, ast.BoolOp)):
            # The inside may run never; a use in it may run several times.
            self.unknown |= (self.state.next > start.next
                             and isinstance(node, _LOOPS))
            self.state = _join(start, self.state)

    def parts(self, node: ast.AST, functions: _Functions) -> None:
        """Walk through the parts of a node; arguments before the call."""
        children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Call):
            # Arguments come before the call, and what is handed to a
            # function is called after all of them.
            children.sort(key=lambda child: (
                child is node.func or self.is_module(child),
                child is not node.func))
            if _named(node.func) == 'getattr' and node.args:
                self.dynamic |= _named(node.args[0]) == 'self'
        for child in children:
            if not isinstance(child, ast.Attribute):
                self.visit(child, functions)
            elif _named(child.value) == 'self':
                self.reference(child, node)
            elif (isinstance(child.value, ast.Call)
                  and _named(child.value.func) == 'super'):
                self.member(child.attr, after=self.active[-1][0])
            else:
                self.visit(child, functions)

    def is_module(self, node: ast.AST) -> bool:
        """Return whether a node is a module of the block, or hands it on."""
        if isinstance(node, ast.keyword):
            node = node.value
        return (isinstance(node, ast.Attribute)
                and _named(node.value) == 'self'
                and (node.attr in self.modules or node.attr == self.name))

    def reference(self, node: ast.Attribute, where: ast.AST) -> None:
        """Follow one ``self.<attribute>``."""
        called = isinstance(where, (ast.Call, ast.keyword)) and not (
            isinstance(where, ast.Call) and _named(where.func) in _LOOKS)
        if node.attr != self.name:
            if node.attr in self.modules and called:
                sure = isinstance(where, ast.Call) and where.func is node
                self.state = self.state._replace(
                    opened=self.state.opened | {node.attr},
                    sure=self.state.sure | ({node.attr} if sure else set()))
            self.member(node.attr)
        elif isinstance(where, _SECOND_NAMES):
            self.unknown = True
        elif called or isinstance(where, ast.Return):
            self.use()

    def use(self) -> None:
        """Number a use."""
        self.uses.append(self.state)
        number = self.state.next
        for key in self.state.opened:
            self.marks.setdefault(key, set()).add(number)
        self.state = _State(number + 1, frozenset(), frozenset(),
                            frozenset([number]))


def _named(node: ast.AST) -> Optional[str]:
    return node.id if isinstance(node, ast.Name) else None
