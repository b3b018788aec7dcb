"""`marram operator certificate`: a certificate that may listen to some topics and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from cloud.cli import certificates, endpoints
from cloud.cli import session as sessions
from nucleus.cli import exits


@click.command("certificate")
@click.argument("name")
@sessions.option
@click.option("--topic", "topics", multiple=True, required=True, help="Topic filter it may hear; repeatable.")
@click.option("--to", "directory", required=True, type=click.Path(path_type=Path, file_okay=False), help="New folder.")
@click.option("--ca", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Certificate to trust.")
def certificate(name: str, root: Path | None, topics: tuple[str, ...], directory: Path, ca: Path | None) -> None:
    """Makes certificate, key and endpoint of NAME in a new folder, for `marram listen --certificate`."""
    if not re.fullmatch(r"[\w.]{1,64}", name):
        raise click.BadParameter("a name has 1 to 64 letters, digits, _ or .", param_hint="NAME")
    if (directory / "operator.key").exists():
        raise exits.Failure(f"cannot make the certificate of {name}: {directory} holds one already")
    session = sessions.open_session(root)
    where = endpoints.find(session, ca)
    made = certificates.issue(session, [certificates.listener_policy(session, name, topics)])
    endpoint = {"host": where.mqtt_host, "port": where.mqtt_port, "name": name}
    files: dict[str, str | bytes] = {
        "operator.pem": made["certificatePem"],
        "operator.key": made["keyPair"]["PrivateKey"],
        "ca.pem": where.ca,
        "endpoint.json": json.dumps(endpoint),
    }
    certificates.write(directory, files)
    click.echo(f"Made a certificate for {name} in {directory}; it may hear {', '.join(topics)}.")
