"""Modules of at most 300 lines, functions of at most 40, nesting of at most 3; exceptions are listed and counted."""

from __future__ import annotations

import ast
import tomllib
from typing import Any

import pytest

from tests.rules import source

MODULE_LINES, FUNCTION_LINES, DEPTH = 300, 40, 3
COUNT = 1  # entries of exceptions.toml; may only go down

_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.Match)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def _exceptions() -> dict[str, dict[str, dict[str, Any]]]:
    with (source.ROOT / "tests/rules/exceptions.toml").open("rb") as stream:
        return tomllib.load(stream)


def _sizes(kind: str) -> dict[str, int]:
    """What is over the limit, with its size."""
    found: dict[str, int] = {}
    for module in source.modules():
        if kind == "modules" and module.path.startswith("tests/"):
            continue  # a table of cases may be long
        if kind == "modules":
            found[module.path] = len(module.text.splitlines())
            continue
        for name, function in source.functions(module):
            measure = _lines if kind == "functions" else _depth
            found[f"{module.path}:{name}"] = measure(function)
    limit = {"modules": MODULE_LINES, "functions": FUNCTION_LINES, "nesting": DEPTH}[kind]
    return {name: size for name, size in found.items() if size > limit}


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From `def` to the last line, without the docstring: explaining costs nothing."""
    first = function.body[0]
    documented = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    spared = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - spared


def _depth(node: ast.AST, depth: int = 0) -> int:
    """The deepest branch of a function: `elif` is as deep as its `if`, `with` is a scope, inner functions are their own."""
    deepest = depth
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _DEFINITIONS):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        inner = depth + 1 if isinstance(child, _BLOCKS) and not is_elif else depth
        deepest = max(deepest, _depth(child, inner))
    return deepest


@pytest.mark.parametrize("kind", ["modules", "functions", "nesting"])
def test_size_when_over_the_limit_then_it_is_excused_exactly(kind: str) -> None:
    unit = "depth" if kind == "nesting" else "lines"
    excused = {name: entry[unit] for name, entry in _exceptions()[kind].items()}

    assert _sizes(kind) == excused


def test_exceptions_when_listed_then_each_has_a_reason_and_their_number_only_falls() -> None:
    entries = [entry for kind in _exceptions().values() for entry in kind.values()]

    assert all(len(entry["reason"]) > 10 for entry in entries)
    assert len(entries) == COUNT


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("def f():\n  pass", 0),
        ("def f():\n  if a:\n    pass\n  elif b:\n    pass\n  elif c:\n    pass", 1),
        ("def f():\n  for a in b:\n    with c:\n      if d:\n        pass", 2),
        ("def f():\n  match a:\n    case 1:\n      if b:\n        pass", 2),
        ("def f():\n  if a:\n    def g():\n      while b:\n        pass", 1),
        ("def f():\n  if a:\n    pass\n  else:\n    if b:\n      pass\n    x = 1", 2),
    ],
)
def test_depth_when_blocks_nest_then_they_count_as_read(text: str, depth: int) -> None:
    assert _depth(ast.parse(text).body[0]) == depth
