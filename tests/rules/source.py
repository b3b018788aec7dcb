"""The repository's own Python as trees: modules, their imports, their functions. Everything the rules look at."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parents[2]
OURS = ("nucleus", "cloud")
FOLDERS = (*OURS, "components", "tools", "tests")


class Module(Struct, frozen=True):
    """`name` is dotted, a package has the name of its folder; `path` is relative to the repository."""

    name: str
    path: str
    tree: ast.Module
    text: str


class Import(Struct, frozen=True):
    """`target` is a module or an attribute of one, as written; `line` where."""

    target: str
    line: int


@functools.cache
def modules(*folders: str) -> tuple[Module, ...]:
    """All modules below the folders (by default all of ours), sorted by path."""
    found = []
    for folder in folders or FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "__pycache__" not in path.parts:
                found.append(_read(path))
    return tuple(found)


def imports(module: Module) -> Iterator[Import]:
    """Every import of a module, also in functions and under TYPE_CHECKING, one for each imported name."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            yield from (Import(f"{base}.{alias.name}", node.lineno) for alias in node.names)


def module_of(target: str, known: frozenset[str]) -> str:
    """The longest prefix of a dotted name that is a module of ours; empty if none is."""
    parts = target.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in known), "")


def functions(module: Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """All functions with their qualified names, nested ones too."""
    stack: list[tuple[str, ast.AST]] = [("", module.tree)]
    while stack:
        prefix, node = stack.pop()
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = f"{prefix}.{child.name}".lstrip(".")
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield name, child
            stack.append((name, child))


def docstrings(module: Module) -> Iterator[tuple[int, str]]:
    """All docstrings with their first lines."""
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield node.body[0].lineno, text


def _read(path: Path) -> Module:
    relative = path.relative_to(ROOT)
    parts = relative.with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text(encoding="utf-8")
    return Module(name, str(relative), ast.parse(text, str(relative)), text)


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name.split(".") if module.path.endswith("__init__.py") else module.name.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])
