"""`marram cloud init|run`: founds and runs the service. The one operator verb that imports the service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from nucleus.cli import exits
from nucleus.core import errors

_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    envvar="MARRAM_ROOT",
    help="The service's root folder (or MARRAM_ROOT).",
)


@click.command()
@_ROOT
@click.option("--account", default="123456789012", show_default=True, help="Account number in every ARN; for ever.")
@click.option("--region", default="us-east-1", show_default=True, help="Region in every ARN; for ever.")
def init(root: Path, account: str, region: str) -> None:
    """Founds a service in a folder; prints where the operator's key lies."""
    from cloud import settings  # the service is imported for these two verbs alone

    root = root.absolute()
    try:
        settings.init(root, account, region)
    except (FileExistsError, ValueError) as error:
        raise exits.Failure(str(error)) from None
    click.echo(f"Founded a service in {root} (account {account}, region {region}).")
    click.echo(f"The operator's key lies in {root / 'operator'}. Next: marram cloud run --root {root}")


@click.command()
@_ROOT
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--api-port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Operator API and S3.")
@click.option("--device-port", default=8443, show_default=True, type=click.IntRange(0, 65535), help="Devices' HTTPS.")
@click.option("--mqtt-port", default=8883, show_default=True, type=click.IntRange(0, 65535), help="Devices' MQTT.")
@click.option("--name", "names", multiple=True, help="Name or address that devices use; the first is advertised.")
def run(root: Path, host: str, api_port: int, device_port: int, mqtt_port: int, names: tuple[str, ...]) -> int:
    """Runs the service until SIGTERM or SIGINT. Port 0 takes a free one; all are in ROOT/endpoints.json."""
    from cloud import app

    settings = app.Settings(api_port=api_port, device_port=device_port, mqtt_port=mqtt_port, host=host, names=names)
    try:
        return app.run(root.absolute(), settings)
    except errors.NucleusError as error:
        raise exits.Failure(error.detail) from None
    except OSError as error:  # a taken port, or BlockingIOError: it runs already
        raise exits.Failure(f"cannot run the service of {root}: {error.strerror or error}") from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        return exits.OK
