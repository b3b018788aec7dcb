"""`marram device create`: registers a core device through the `iot` operations and writes what its nucleus needs."""

from __future__ import annotations

import getpass
import grp
import os
from pathlib import Path
from typing import Any

import click
import yaml

from cloud.cli import certificates, endpoints
from cloud.cli import group as thing_groups
from cloud.cli import session as sessions
from nucleus.cli import exits
from nucleus.core import status


@click.command("create")
@click.argument("thing")
@sessions.option
@click.option(
    "--to", "device_root", required=True, type=click.Path(path_type=Path, file_okay=False), help="Root folder."
)
@click.option("--group", "groups", multiple=True, help="Thing group to join, created if missing; repeatable.")
@click.option("--topic", "topics", multiple=True, help="Topic filter its components may use in the cloud; repeatable.")
@click.option("--user", "posix_user", default="", help="USER[:GROUP] that runs components; default: the caller.")
@click.option("--role-alias", default="", help="Role alias whose role its components get (TokenExchangeService).")
@click.option("--ca", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Certificate to trust.")
def create(
    thing: str,
    root: Path | None,
    device_root: Path,
    groups: tuple[str, ...],
    topics: tuple[str, ...],
    posix_user: str,
    role_alias: str,
    ca: Path | None,
) -> None:
    """Registers THING with a new certificate; a thing that exists gets a further one."""
    device_root = device_root.absolute()
    if (device_root / "device.key").exists():
        raise exits.Failure(f"cannot create {thing}: {device_root} is a device's root already")
    session = sessions.open_session(root)
    where = endpoints.find(session, ca)
    iot = session.client("iot")
    iot.create_thing(thingName=thing)
    policies = [certificates.device_policy(session), *(certificates.topic_policy(session, one) for one in topics)]
    if role_alias:
        policies.append(certificates.role_alias_policy(session, role_alias))
    made = certificates.issue(session, policies, thing)
    for group in groups:
        thing_groups.ensure(iot, group)
        iot.add_thing_to_thing_group(thingGroupName=group, thingName=thing)
    configuration = configure(thing, device_root, session.region, where, posix_user or _caller())
    if role_alias:
        configuration["services"]["aws.greengrass.Nucleus"]["configuration"]["iotRoleAlias"] = role_alias
    files: dict[str, str | bytes] = {
        "device.pem": made["certificatePem"],
        "device.key": made["keyPair"]["PrivateKey"],
        "ca.pem": where.ca,
        "config.yaml": yaml.safe_dump(configuration, sort_keys=False),
    }
    certificates.write(device_root, files)
    click.echo(f"Created {thing} (certificate {made['certificateId'][:16]}…) in {device_root}.")
    click.echo(f"Next: marram nucleus run --root {device_root}")


def configure(thing: str, root: Path, region: str, where: endpoints.Endpoints, posix_user: str) -> dict[str, Any]:
    """The field's own configuration file (spec/cloud.md 4.3)."""
    nucleus = {
        "awsRegion": region,
        "iotDataEndpoint": where.mqtt_host,
        "iotCredEndpoint": where.credentials_host,
        "greengrassDataPlaneEndpoint": where.data_plane_host,
        "greengrassDataPlanePort": where.data_plane_port,
        "mqtt": {"port": where.mqtt_port},
        "runWithDefault": {"posixUser": posix_user},
    }
    return {
        "system": {
            "certificateFilePath": str(root / "device.pem"),
            "privateKeyPath": str(root / "device.key"),
            "rootCaPath": str(root / "ca.pem"),
            "rootpath": str(root),
            "thingName": thing,
        },
        "services": {
            "aws.greengrass.Nucleus": {
                "componentType": "NUCLEUS",
                "version": status.VERSION,
                "configuration": nucleus,
            }
        },
    }


def _caller() -> str:
    return f"{getpass.getuser()}:{grp.getgrgid(os.getgid()).gr_name}"
