"""`marram ipc explain`: which policy lets a component do something over IPC, or what would."""

from __future__ import annotations

from pathlib import Path

import click

from nucleus.cli import daemon, output


@click.command("explain")
@click.argument("component")
@click.argument("operation")
@click.argument("resource", default="")
@daemon.option
@output.option
def explain(component: str, operation: str, resource: str, root: Path, output_: str) -> None:
    """Says which policy allows COMPONENT the OPERATION on RESOURCE, or what would allow it."""
    wanted = {"componentName": component, "operation": operation, "resource": resource}
    with daemon.connect(root) as ipc:
        found = ipc.call("marram#ExplainAccess", wanted)
    if output_ == "json":
        output.record("access", found, output_)
        return
    click.echo(("Allowed: " if found["allowed"] else "Denied: ") + found["sentence"])
    if found["remedy"]:
        click.echo(f"  {found['remedy']}")
