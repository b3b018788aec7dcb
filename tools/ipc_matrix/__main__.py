"""`make ipc-matrix`: every operation × every client against the running daemon. Exit code 1 on any failure.

    python -m tools.ipc_matrix [-o text|json] [--client NAME]… [--operation NAME]…

The clients: `python` (awsiotsdk, clientv2), `javascript` (npm aws-iot-device-sdk-v2), both unmodified, and `ours`
(nucleus/ipc/client.py). Each is a component process of a real nucleus with the real cloud and, for secrets, moto's
server. What is not given on the command line is all.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from nucleus.wire import shapes
from tests.nucleus import cloud_secrets
from tools import system as systems
from tools.ipc_matrix import node_package, report, runner, scenarios, scenarios_cloud, world

CLIENTS: dict[str, Callable[[Path], list[str]]] = {
    "python": world.python_command,
    "javascript": lambda _folder: node_package.command(node_package.find(install=True)),
    "ours": world.our_command,
}
FIRST = scenarios.SCENARIOS + scenarios_cloud.SCENARIOS
ALL = FIRST + scenarios_cloud.LAST


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ipc-matrix", description=__doc__)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument("--client", action="append", choices=list(CLIENTS), help="only this client; repeatable")
    parser.add_argument(
        "--operation", action="append", choices=list(shapes.OPERATIONS), help="only this one; repeatable"
    )
    options = parser.parse_args(arguments)
    try:
        results = run(options.client or list(CLIENTS), options.operation or list(shapes.OPERATIONS))
    except node_package.Absent as reason:
        print(
            f"cannot run the JavaScript client: {reason}; --client python --client ours runs without it",
            file=sys.stderr,
        )
        return 2
    print(report.machine(results).decode() if options.output == "json" else report.table(results))
    return int(any(one.status == "failed" for one in results))


def run(clients: Collection[str], only: Collection[str]) -> list[runner.Result]:
    """Plays everything about these operations with each client, one after the other."""
    found = []
    with surroundings() as around:
        for client in clients:
            print(f"{report.TITLES[client]} …", file=sys.stderr, flush=True)
            found += play(client, only, *around)
    return found


def play(
    client: str, only: Collection[str], system: systems.System, services: dict[str, Any], values: dict[str, Any]
) -> list[runner.Result]:
    """The same with one client, on a device of its own."""
    with device(system, client, services, values) as one:
        player = runner.Runner(client, one)
        found = player.play(each for each in FIRST if each.operation in only)
        found += player.play_faults(ALL, [name for name in shapes.OPERATIONS if name in only])
        return found + player.play(each for each in scenarios_cloud.LAST if each.operation in only)


@contextlib.contextmanager
def surroundings() -> Iterator[tuple[systems.System, dict[str, Any], dict[str, Any]]]:
    """A cloud with secrets and a client device; the configuration of built-in components, and values for scenarios."""
    with tempfile.TemporaryDirectory(prefix="mx") as folder, cloud_secrets.serving() as service:
        system = systems.System(Path(folder))
        try:
            system.start_cloud()
            system.publish(world.recipe(world.CLOUD, {"Install": "true"}))
            name, arn = service.create("the-value")
            _, binary = service.create(b"\x00\x01\xff")
            values = {"secret_name": name, "secret": arn, "secret_binary": binary} | client_device(system)
            yield system, built_in(service.url, arn, binary), values
        finally:
            system.close()


def built_in(secrets_url: str, *secrets: str) -> dict[str, Any]:
    """Configuration of the built-in components as a device's file gives it."""
    cloud_secrets_ = [{"arn": one} for one in secrets]
    everybody = {"selectionRule": "thingName: *", "policyName": "all"}
    everything = {"statementDescription": "All.", "operations": ["*"], "resources": ["*"]}
    return {
        "aws.greengrass.SecretManager": {"cloudSecrets": cloud_secrets_, "marram": {"secretsEndpoint": secrets_url}},
        "aws.greengrass.ShadowManager": {"strategy": {"type": "realTime"}},
        "aws.greengrass.clientdevices.Auth": {
            "deviceGroups": {
                "formatVersion": "2021-03-05",
                "definitions": {"all": everybody},
                "policies": {"all": {"everything": everything}},
            }
        },
    }


def client_device(system: systems.System) -> dict[str, Any]:
    """A thing with a certificate that will be a client of the core devices."""
    iot = system.client("iot")
    iot.create_thing(thingName="matrix-client")
    made = iot.create_keys_and_certificate(setAsActive=True)
    iot.attach_thing_principal(thingName="matrix-client", principal=made["certificateArn"])
    return {"client": "matrix-client", "client_certificate": made["certificatePem"]}


@contextlib.contextmanager
def device(
    system: systems.System,
    client: str,
    services: dict[str, Any],
    values: dict[str, Any],
    *,
    thing: str = "",
    test_root: bool = True,
) -> Iterator[world.Device]:
    """The nucleus of one client with its drivers."""
    thing = thing or f"mx-{client}"
    command = CLIENTS[client](system.root / "drivers")
    folder = world.prepare(system, thing, services)
    if test_root:
        (folder / "test-root").touch()
    one = world.Device(system, thing, command, values)
    try:
        yield one
    finally:
        one.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
