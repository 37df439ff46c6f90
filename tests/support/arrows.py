"""What the modules of a package name of each other: imports and strings."""
import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Dict, Iterator, NamedTuple, Set


class Arrow(NamedTuple):
    """One place where a module names another one."""

    source: str
    target: str
    where: str
    in_string: bool


class Package:
    """The modules of a package, their classes and their arrows."""

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, root.name
        self.trees = {}
        self.owners: Dict[str, Set[str]] = defaultdict(set)
        for path in sorted(root.rglob('*.py')):
            parts = path.relative_to(root.parent).with_suffix('').parts
            module = '.'.join(p for p in parts if p != '__init__')
            self.trees[module] = path, ast.parse(path.read_text())
        for module, (_, tree) in self.trees.items():
            for node in tree.body:
                if isinstance(node, ast.ClassDef):
                    self.owners[node.name].add(module)

    def arrows(self, module: str) -> Iterator[Arrow]:
        """Yield each module of the package that this one names, and where."""
        path, tree = self.trees[module]
        texts = words(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [self._module(a.name) for a in node.names]
            elif isinstance(node, ast.ImportFrom):
                targets = self._imported(module, path, node)
            elif isinstance(node, ast.Constant) and isinstance(
                    node.value, str) and id(node) not in texts:
                targets = self._named(node.value)
            else:
                continue
            where = f'{path.relative_to(self.root.parent)}:'
            for target in targets:
                if target and target != module:
                    yield Arrow(module, target, f'{where}{node.lineno}',
                                isinstance(node, ast.Constant))

    def _module(self, name: str) -> str:
        """Return the module of ours that a dotted name leads into, or ''."""
        while name and name not in self.trees:
            name = name.rpartition('.')[0]
        return name

    def _imported(self, module: str, path: Path, node: ast.ImportFrom) -> list:
        base = node.module or ''
        if node.level:
            up = node.level - (path.name == '__init__.py')
            parts = module.split('.')
            base = '.'.join(
                parts[:len(parts) - up] + ([base] if base else []))
        if self._module(base) != base:
            return []
        return [self._module(f'{base}.{a.name}') for a in node.names]

    def _named(self, text: str) -> list:
        """Return what ``'apa_mm.X'`` and the bare name of a class mean."""
        if re.fullmatch(rf'{self.name}(\.\w+)+\.?', text):
            name = text.rstrip('.')
            found = self._module(name)
            if found != self.name:
                return [found]
            text = name.rpartition('.')[2]
        return list(self.owners[text]) if len(
            self.owners.get(text, ())) == 1 else []


def words(tree: ast.AST) -> set:
    """Return the ids of the strings in docstrings and in ``__all__``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr):
            found.add(id(node.value))
        elif isinstance(node, ast.Assign) and '__all__' in {
                getattr(target, 'id', None) for target in node.targets}:
            found |= {id(part) for part in ast.walk(node.value)}
    return found


def circles(edges: Dict[str, Set[str]]) -> list:
    """Return the sets of modules that reach each other."""

    def reach(start: str) -> set:
        seen, todo = set(), [start]
        while todo:
            for target in edges.get(todo.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        return seen

    reached = {module: reach(module) for module in edges}
    groups = {
        frozenset(m for m in targets if module in reached.get(m, ()))
        for module, targets in reached.items() if module in targets
    }
    return sorted(sorted(group) for group in groups)
