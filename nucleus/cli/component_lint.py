"""`marram component lint FILE…`: the mistakes of recipes, one a line, for people and for editors."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from nucleus.cli import exits, output
from nucleus.cli import lint as linter


@click.command("lint")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@output.option
def lint(files: tuple[Path, ...], output_: str) -> int:
    """Finds all mistakes in recipes; exit code 1 if there are any.

    Recipes beside the named ones are looked at to learn which components are models.
    """
    recipes = {path: path.read_bytes() for path in files}
    models = {linter.model_name(data) for data in [*recipes.values(), *_beside(files)]} - {""}
    found = [mistake for path, data in recipes.items() for mistake in linter.lint(data, str(path), models)]
    if output_ == "json":
        output.show("mistakes", [msgspec.to_builtins(one) for one in found], {}, output_)
    else:
        for mistake in found:
            click.echo(str(mistake))
        click.echo(f"{len(files)} recipe(s), {len(found)} mistake(s)", err=True)
    return exits.ERROR if found else exits.OK


def _beside(files: tuple[Path, ...]) -> list[bytes]:
    folders = {path.parent for path in files}
    found = {path for folder in folders for pattern in ("*.yaml", "*.yml", "*.json") for path in folder.glob(pattern)}
    return [path.read_bytes() for path in sorted(found) if path.stat().st_size <= linter.LIMIT_BYTES]
