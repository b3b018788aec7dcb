"""`core` and `wire` are pure: no input or output, clock, randomness, logging, asyncio, environment (design.md 1)."""

from __future__ import annotations

import ast

import pytest

from tests.rules import source

PURE = ("nucleus.core", "nucleus.wire", "cloud.core")
IMPURE_MODULES = frozenset(
    {
        "asyncio",
        "concurrent",
        "contextvars",
        "ctypes",
        "fcntl",
        "http",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "psutil",
        "random",
        "requests",
        "secrets",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "sqlite3",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "urllib.request",
        "uuid",
        "awscrt",
        "awsiot",
        "boto3",
        "botocore",
        "sqlalchemy",
        "starlette",
        "structlog",
    }
)
IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "__import__"})
IMPURE_ATTRIBUTES = frozenset({"now", "utcnow", "today", "fromtimestamp"})  # of datetime and date: clock or local zone

# (module, imported or called name): why it is harmless.
ALLOWED = {
    ("cloud.core.tls", "ssl"): "ssl.MemoryBIO does no IO: bytes in, bytes out (design.md 4.6, row 4)",
}


def _pure_modules() -> list[source.Module]:
    return [
        module
        for module in source.modules(*source.OURS)
        if any(module.name == prefix or module.name.startswith(prefix + ".") for prefix in PURE)
    ]


def _impurities(module: source.Module) -> list[str]:
    names = [(one.target, one.line) for one in source.imports(module) if _is_impure(one.target)]
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id=name) if name in IMPURE_CALLS:
                names.append((name, node.lineno))
            case ast.Attribute(attr=name, value=ast.Name(id="datetime" | "date")) if _reads_the_world(name, node):
                names.append((f"datetime.{name}", node.lineno))
            case ast.Attribute(attr=name, value=ast.Attribute(attr="datetime" | "date")) if _reads_the_world(
                name, node
            ):
                names.append((f"datetime.{name}", node.lineno))
    return [f"{module.path}:{line}: {name}" for name, line in names if (module.name, name) not in ALLOWED]


def _is_impure(target: str) -> bool:
    return (
        target.split(".")[0] in IMPURE_MODULES
        or target in IMPURE_MODULES
        or ".".join(target.split(".")[:2]) in IMPURE_MODULES
    )


def _reads_the_world(name: str, call: ast.Call) -> bool:
    """`fromtimestamp` with a zone is arithmetic; without one it asks the machine's settings."""
    return name in IMPURE_ATTRIBUTES and not (name == "fromtimestamp" and len(call.args) + len(call.keywords) > 1)


def test_pure_packages_when_read_then_they_touch_nothing_outside() -> None:
    wrong = [line for module in _pure_modules() for line in _impurities(module)]

    assert _pure_modules()
    assert not wrong, "\n".join(wrong)


def test_allowed_impurities_when_no_longer_there_then_the_list_shrinks() -> None:
    used = {(module.name, one.target) for module in _pure_modules() for one in source.imports(module)}

    assert set(ALLOWED) <= used


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("import json", 0),
        ("import time", 1),
        ("from os import path", 1),
        ("def f():\n    import random", 1),
        ("import datetime\ndatetime.datetime.now()", 1),
        ("import datetime\ndatetime.datetime.fromtimestamp(1, datetime.UTC)", 0),
        ("open('x')", 1),
        ("import urllib.request", 1),
        ("from urllib import parse", 0),
        ("from urllib import request", 1),
    ],
)
def test_impurities_when_looked_for_then_they_are_found(text: str, count: int) -> None:
    module = source.Module("nucleus.core.example", "example.py", ast.parse(text), text)

    assert len(_impurities(module)) == count
