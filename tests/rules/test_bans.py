"""What is banned everywhere (design.md 6). Ruff bans most of it by import; this finds what it cannot see."""

from __future__ import annotations

import ast

import pytest

from tests.rules import source

LOOSE_TASKS = ("create_task", "ensure_future")  # fine on a TaskGroup, a leak on the loop or the module
SHELLS = {"nucleus.host.process"}  # scripts of recipes are the one thing that goes through a shell


def _wrong(module: source.Module) -> list[str]:
    found = []
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=name, value=ast.Name(id="asyncio" | "loop"))) if name in (
                *LOOSE_TASKS,
                "gather",
            ):
                found.append((node.lineno, f"asyncio.{name}: every task is born in a TaskGroup"))
            case ast.Call(func=ast.Attribute(attr=name, value=ast.Call())) if name in LOOSE_TASKS:
                found.append((node.lineno, f"….{name}: every task is born in a TaskGroup"))
            case ast.keyword(arg="shell", value=ast.Constant(value=True)) if module.name not in SHELLS:
                found.append((node.value.lineno, "shell=True: only scripts of recipes go through a shell"))
            case ast.ExceptHandler(type=None):
                found.append((node.lineno, "a bare except catches cancellation"))
            case ast.ExceptHandler(type=ast.Name(id="CancelledError") | ast.Attribute(attr="CancelledError")):
                found.append((node.lineno, "cancellation is not an error: clean up in finally"))
    return [f"{module.path}:{line}: {what}" for line, what in found]


def test_banned_calls_when_looked_for_then_there_are_none() -> None:
    wrong = [line for module in source.modules("nucleus", "cloud", "components") for line in _wrong(module)]

    assert not wrong, "\n".join(wrong)


def test_own_packages_when_imported_then_as_modules_or_types() -> None:
    known = frozenset(module.name for module in source.modules(*source.OURS))
    wrong = [
        f"{module.path}:{one.line}: import the module of {one.target}"
        for module in source.modules(*source.OURS)
        for one in source.imports(module)
        if one.target.split(".")[0] in source.OURS and one.target not in known and not _is_type(one.target)
    ]

    assert not wrong, "\n".join(wrong)


def _is_type(target: str) -> bool:
    """Records and enums may be named themselves: they read better in a match statement."""
    return target.rpartition(".")[2][0].isupper()


def test_imports_in_functions_when_outside_the_command_line_then_there_are_none() -> None:
    wrong = [
        f"{module.path}:{node.lineno}: {name} imports when it is called"
        for module in source.modules("nucleus", "cloud", "components")
        if ".cli." not in module.name
        for name, function in source.functions(module)
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "import asyncio\nasyncio.create_task(f())",
        "import asyncio\nasyncio.get_running_loop().create_task(f())",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "try:\n  pass\nexcept:\n  pass",
        "try:\n  pass\nexcept asyncio.CancelledError:\n  pass",
    ],
)
def test_bans_when_broken_then_they_are_found(text: str) -> None:
    assert _wrong(source.Module("nucleus.x", "x.py", ast.parse(text), text))


def test_tracked_files_when_read_then_none_names_the_place_they_were_written_at() -> None:
    needles = tuple("/work/" + name for name in ("main", "shared"))
    suffixes = (".py", ".md", ".toml", ".yaml", ".json", ".sh", "")
    folders = (*source.FOLDERS, "recipes", ".ci")
    inside = [path for folder in folders for path in (source.ROOT / folder).rglob("*")]
    texts = [path for path in [*inside, *source.ROOT.glob("*")] if path.is_file() and path.suffix in suffixes]

    wrong = [
        f"{path.relative_to(source.ROOT)}:{number}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if any(needle in line for needle in needles)
    ]

    assert not wrong
