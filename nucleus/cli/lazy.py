"""Click groups that import a verb only when it is called, so that `marram` starts fast (design.md 4.6, row 21)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

from nucleus.cli import exits

# Packages of extras, so that a missing one can be told with the cure instead of a stack.
_EXTRA = "cloud"
_OF_OPTIMISE = frozenset({"numpy", "onnx", "onnxruntime", "PIL"})


class Row:
    """One verb: where it is and what it says of itself. Rows below it make it a group."""

    def __init__(self, target: str = "", help_text: str = "") -> None:
        self.target = target
        self.help_text = help_text
        self.below: dict[str, Row] = {}


def tree(verbs: tuple[tuple[str, str, str], ...]) -> Row:
    """Builds the tree of verbs from the flat tables; of two rows with the same name the first counts."""
    root = Row()
    for name, target, help_text in verbs:
        at = root
        for word in name.split():
            at = at.below.setdefault(word, Row())
        if not at.help_text:
            at.target, at.help_text = target, help_text
    return root


class Verbs(click.Group):  # click's way to make commands lazy is a subclass
    """A group over a table of rows."""

    def __init__(self, name: str, rows: Mapping[str, Row], help_text: str, target: str = "") -> None:
        super().__init__(name, help=help_text, no_args_is_help=not target)
        self._rows = rows
        self._target = target

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """A group with a command of its own takes every word that is none of its verbs (`marram logs NAME`)."""
        if self._target and (not args or (args[0] not in self._rows and args[0] not in ctx.help_option_names)):
            args = ["", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if not cmd_name:
            return _load(ctx.command_path, self._target)
        row = self._rows.get(cmd_name)
        if row is None:
            return None
        if row.below:
            return Verbs(cmd_name, row.below, row.help_text, row.target)
        return _load(f"{ctx.command_path} {cmd_name}", row.target)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the help from the table: click's own would import every verb."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._rows[name].help_text) for name in sorted(self._rows)])


def _load(path: str, target: str) -> click.Command:
    module, _, attribute = target.partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("nucleus", "cloud"):
            raise
        extra = "cloud,optimise" if missing in _OF_OPTIMISE else _EXTRA
        told = f"the package {missing} is not installed (pip install 'marram[{extra}]')"
        raise exits.Failure(f"cannot run `{path}`: {told}") from None
    assert isinstance(command, click.Command), f"{target} is no command"
    return command
