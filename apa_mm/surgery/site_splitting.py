"""Give every call of a block's shared module a module of its own."""
import ast
import inspect
from types import FunctionType
from typing import Dict, Mapping, Optional, Tuple

from apa_mm.surgery.call_sites import CallSites, source_tree

__all__ = ['class_with_sites']

#: Position in a method's source -> (attribute, number of the use).
_Places = Dict[Tuple[int, int], Tuple[str, int]]


def class_with_sites(cls: type, sites: Mapping[str, CallSites]) -> type:
    """Return a subclass that reads ``self.<name>[i]`` for ``self.<name>``.

    Its methods are those of the parent but for the indices; the parent stays
    as it is. There is no hidden state, so a block of this class can be
    copied, compiled and recomputed by gradient checkpointing. Like every
    object of a class made at run time it cannot be pickled whole; its state
    dict can.

    Args:
        cls (type): Class of a block, or a result of this function.
        sites (Mapping[str, CallSites]): By attribute, the sites of modules
            that are called more than once; all known.

    Returns:
        type: The subclass. Put an ``nn.ModuleList`` under each name.

    Raises:
        ValueError: If a method cannot be written anew.

    Example:
        >>> from torchvision.models.resnet import Bottleneck, resnet50
        >>> from apa_mm.surgery.call_sites import find_call_sites
        >>> sites = find_call_sites(resnet50().layer1[0], 'relu')
        >>> issubclass(class_with_sites(Bottleneck, dict(relu=sites)),
        ...            Bottleneck)
        True
    """
    # Sources are the original ones, so all indices are written at once.
    original = vars(cls).get('_unsplit', cls)
    sites = {**vars(cls).get('_split_sites', {}), **sites}
    places: Dict[str, _Places] = {}
    for name, found in sites.items():
        for method, where in found.places.items():
            for position, index in where.items():
                places.setdefault(method, {})[position] = (name, index)
    members = {
        method: _split_method(original, method, where)
        for method, where in places.items()
    }
    return type(
        cls.__name__, (original, ),
        dict(
            members,
            _unsplit=original,
            _split_sites=sites,
            __module__=cls.__module__,
            __qualname__=cls.__qualname__,
            __doc__=cls.__doc__))


def _split_method(cls: type, method: str, places: _Places) -> object:
    function = getattr(cls, method)
    is_property = isinstance(function, property)
    new = _rewrite(function.fget if is_property else function, places)
    if new is None:
        names = sorted({f'{cls.__name__}.{name}' for name, _ in
                        places.values()})
        raise ValueError(
            f'the calls of {", ".join(names)} cannot be told apart, since '
            f'{cls.__name__}.{method} uses private names or decorators; name '
            f'it in shared={names} to let all of them use one unit, or leave '
            'it out by pattern')
    return property(new) if is_property else new


class _Indices(ast.NodeTransformer):
    """Writes the index behind the attribute at the given places."""

    def __init__(self, places: _Places) -> None:
        self.places = places
        self.private = False

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:  # noqa: N802
        # Outside a class body Python does not mangle such a name.
        self.private |= (
            node.attr.startswith('__') and not node.attr.endswith('__'))
        self.generic_visit(node)
        name, index = self.places.get((node.lineno, node.col_offset),
                                      (None, 0))
        # A chain such as self.a.b starts where self.a does.
        if node.attr != name or not isinstance(node.value, ast.Name):
            return node
        return ast.copy_location(
            ast.Subscript(node, ast.Constant(index), ast.Load()), node)


def _rewrite(function: FunctionType,
             places: _Places) -> Optional[FunctionType]:
    """Compile a method with indices in it, in the scope of the old one."""
    indices = _Indices(places)
    tree = indices.visit(source_tree(function))
    decorators = [ast.unparse(node) for node in tree.decorator_list]
    if indices.private or decorators not in ([], ['property']):
        return None
    _strip(tree)
    # What the method closes over, __class__ of super() included, comes in as
    # arguments of a function around it.
    outer = ast.parse(f'def outer({", ".join(function.__code__.co_freevars)}):'
                      f'\n    return {tree.name}')
    outer.body[0].body.insert(0, tree)
    ast.increment_lineno(tree, function.__code__.co_firstlineno - 1)
    ast.fix_missing_locations(outer)
    code = compile(
        outer,
        inspect.getsourcefile(function) or '<block>',
        'exec',
        dont_inherit=True)
    scope: Dict[str, FunctionType] = {}
    exec(code, function.__globals__, scope)
    new = scope['outer'](
        *(cell.cell_contents for cell in function.__closure__ or ()))
    for attribute in ('__defaults__', '__kwdefaults__', '__annotations__',
                      '__doc__', '__qualname__', '__module__'):
        setattr(new, attribute, getattr(function, attribute))
    return new


def _strip(tree: ast.FunctionDef) -> None:
    """Remove what would be evaluated anew, in another scope than before."""
    tree.decorator_list, tree.returns = [], None
    arguments = tree.args
    arguments.defaults = [ast.Constant(None) for _ in arguments.defaults]
    arguments.kw_defaults = [
        default and ast.Constant(None) for default in arguments.kw_defaults
    ]
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
