"""`marram nucleus install | uninstall`: folders, configuration, the loader, and a service that keeps it running.

Modes of folders: spec/nucleus.md 9.1. The service is a systemd unit or, without systemd, a script `bin/service`.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import yaml

from nucleus.cli import exits, service_files
from nucleus.core import builtin, errors, run_as
from nucleus.host import places

PRIVATE = ("alts", "config", "deployments", "logs", "packages/recipes", "plugins", "plugins/trusted", "telemetry")
OPEN = ("bin", "cli_ipc_info", "packages", "packages/artifacts", "packages/artifacts-unarchived", "work")
UNITS = Path("/etc/systemd/system")
SYSTEMD, SHELL = "systemd", "shell"

_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/greengrass/v2"),
    show_default=True,
    envvar=["MARRAM_DEVICE_ROOT", "GGC_ROOT_PATH"],
    help="The device's root folder.",
)
_NAME = click.option("--name", default="marram-nucleus", show_default=True, help="Name of the service.")
_UNITS = click.option(
    "--unit-directory",
    "units",
    type=click.Path(path_type=Path, file_okay=False),
    default=UNITS,
    show_default=True,
    help="Where systemd units lie.",
)


@click.command()
@_ROOT
@_NAME
@_UNITS
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False, exists=True), help="Configuration file to start with."
)
@click.option("--init", "kind", type=click.Choice([SYSTEMD, SHELL]), help="Kind of service; default: what runs here.")
@click.option(
    "--component-default-user",
    "user",
    default="",
    metavar="USER[:GROUP]",
    help="Who runs components that name no user (runWithDefault.posixUser); one that a deployment has set wins.",
)
@click.option("--start/--no-start", default=True, show_default=True, help="Enable and start the service at once.")
def install(root: Path, name: str, units: Path, config: Path | None, kind: str | None, user: str, start: bool) -> int:
    """Installs this nucleus as a service of the machine; again over an installation repairs it."""
    root = root.absolute()
    chosen = kind or (SYSTEMD if Path("/run/systemd/system").is_dir() else SHELL)
    try:
        if user:
            _check_user(user)  # refused before anything is written
        _lay_out(root, config)
        if user:
            _set_default_user(places.Places(root).root / "config.yaml", user)
        files = service_files.write(root, name=name, units=units if chosen == SYSTEMD else None)
    except (OSError, errors.NucleusError, ValueError, LookupError) as error:
        raise exits.Failure(f"cannot install the nucleus in {root}: {error}") from None
    for path in files:
        click.echo(f"wrote {path}")
    commands = _starting(name) if chosen == SYSTEMD else ((str(root / "bin" / "service"), "start"),)
    return _perform(commands) if start else _tell("To start it:", commands)


@click.command()
@_ROOT
@_NAME
@_UNITS
def uninstall(root: Path, name: str, units: Path) -> int:
    """Stops and removes the service; the root folder with everything in it stays."""
    root = root.absolute()
    unit, script = units / f"{name}.service", root / "bin" / "service"
    if not unit.exists() and not script.exists():
        raise exits.Failure(f"cannot uninstall the nucleus: there is neither {unit} nor {script}")
    if script.exists():
        _perform(((str(script), "stop"),))
    if unit.exists():
        if units == UNITS and shutil.which("systemctl"):
            _perform((("systemctl", "disable", "--now", name),))
        unit.unlink()
        click.echo(f"removed {unit}")
    for path in (script, root / "bin" / "loader"):
        path.unlink(missing_ok=True)
        click.echo(f"removed {path}")
    click.echo(f"The data of the device is still in {root}; delete that folder to forget it.")
    return exits.OK


def _lay_out(root: Path, config: Path | None) -> None:
    for names, mode in ((("",), 0o755), (OPEN, 0o755), (PRIVATE, 0o700)):
        for name in names:
            path = root / name
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)
    target = places.Places(root).root / "config.yaml"
    if config is not None and config.absolute() != target:
        _write(target, config.read_bytes())
    elif not target.exists():
        _write(target, service_files.first_configuration(root))


def _check_user(text: str) -> None:
    """Raises ValueError or LookupError for a user or group that this machine does not have; numbers are taken as they are."""
    user, group = run_as.split(text)
    if not user.isdecimal():
        pwd.getpwnam(user)
    if group and not group.isdecimal():
        grp.getgrnam(group)


def _set_default_user(path: Path, user: str) -> None:
    """Into the file, whose comments are not kept. Its values are taken over at every start, below those that a deployment
    has set: on a root where one has set the default user, that one stays in force."""
    found = yaml.safe_load(path.read_bytes()) or {}
    node = found
    for name in ("services", builtin.NUCLEUS, "configuration", "runWithDefault"):
        node = node.setdefault(name, {})
    node["posixUser"] = user
    _write(path, yaml.safe_dump(found, sort_keys=False).encode())


def _write(path: Path, data: bytes) -> None:
    """Owner only: a configuration may hold a proxy's password."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(data)
    fresh.chmod(0o600)
    fresh.replace(path)


def _starting(name: str) -> tuple[tuple[str, ...], ...]:
    return (("systemctl", "daemon-reload"), ("systemctl", "enable", name), ("systemctl", "restart", name))


def _perform(commands: tuple[tuple[str, ...], ...], say: Callable[[str], None] = click.echo) -> int:
    for command in commands:
        say(" ".join(command))
        done = subprocess.run(command, check=False, env=os.environ)
        if done.returncode != 0:
            raise exits.Failure(f"cannot go on: `{' '.join(command)}` ended with {done.returncode}")
    return exits.OK


def _tell(title: str, commands: tuple[tuple[str, ...], ...]) -> int:
    click.echo(title)
    for command in commands:
        click.echo(f"  {' '.join(command)}")
    return exits.OK
