"""Conformance list 13.6, the part on identity: token exchange (66) and provisioning plug-ins (67)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cloud.store import pki
from nucleus.actors import token_exchange
from nucleus.core import configuration
from tests.conformance import daemon
from tests.nucleus.actors import test_token_exchange as exchanges

SLOW = """
import pathlib, threading
def provision(parameters):
    folder = pathlib.Path(parameters["folder"])
    while not (folder / "go").exists():
        threading.Event().wait(0.02)
    names = {"certificateFilePath": "d.pem", "privateKeyPath": "d.key", "rootCaPath": "ca.pem"}
    system = {name: str(folder / file) for name, file in names.items()}
    nucleus = {"iotDataEndpoint": "localhost", "mqtt": {"port": 1}}
    return {"system": {"thingName": "plugged", **system}, "nucleus": nucleus}
"""
NEEDY = """
def provision(parameters):
    return {"system": {"thingName": parameters.get("name")}}
"""
FAILING = """
def provision(parameters):
    raise RuntimeError("the factory's server says no")
"""


def with_plugin(where: Path, text: str, **parameters: str) -> dict[str, Any]:
    """The services of a configuration file that names a plug-in."""
    (where / "plugin.py").write_text(text)
    settings = {"plugin": str(where / "plugin.py"), "parameters": parameters}
    return {"aws.greengrass.Nucleus": {"configuration": {"marram": {"provisioning": settings}}}}


def logged(one: daemon.Daemon, word: str) -> Callable[[], bool]:
    return lambda: word in one.log()


async def test_66_token_exchange_when_asked_then_credentials_for_a_token_and_on_a_changed_port(tmp_path: Path) -> None:
    async with exchanges.exchange(tmp_path) as one:
        assert (await one.get())[0] == 200
        assert (await one.get(token=""))[0] == 403
        assert (await one.get(token="WRONG"))[0] == 403
        spare = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
        port = spare.sockets[0].getsockname()[1]
        spare.close()
        await spare.wait_closed()
        moved = asyncio.Event()
        one.store.watch((*token_exchange.SETTINGS, "activePort"), lambda _changes: moved.set())

        one.configure(port=port)
        async with asyncio.timeout(10):
            await moved.wait()

        assert one.uri == f"http://127.0.0.1:{port}{token_exchange.PATH}"
        assert (await one.get())[0] == 200
        assert configuration.get(one.store.tree, (*token_exchange.SETTINGS, "activePort")) == port


def test_67_plugin_when_parameters_are_missing_or_it_raises_then_offline(tmp_path: Path) -> None:
    for number, (text, why) in enumerate(((NEEDY, "lacks thingName"), (FAILING, "server says no"))):
        with daemon.running(tmp_path / str(number), services=with_plugin(tmp_path, text)) as one:
            one.until(logged(one, "provisioning.failed"), "the plug-in to fail")
            assert why in one.log()
            assert one.call("ListComponents")["components"] is not None


def test_67_plugin_when_slow_then_components_run_before_and_it_is_online_later(tmp_path: Path) -> None:
    authority = pki.Authority.create(tmp_path)
    made = authority.issue_device()
    (tmp_path / "d.pem").write_text(made.pem)
    (tmp_path / "d.key").write_text(made.private_key)
    with daemon.running(tmp_path / "root", services=with_plugin(tmp_path, SLOW, folder=str(tmp_path))) as one:
        assert one.call("ListComponents")["components"] is not None
        assert "mqtt." not in one.log()

        (tmp_path / "go").touch()

        one.until(lambda: "mqtt.connect_failed" in one.log(), "the connection to be tried")
        assert one.has_logged("provisioning.done", "plugged")


def test_67_plugins_when_two_then_the_launch_fails(tmp_path: Path) -> None:
    by_claim: dict[str, Any] = {"aws.greengrass.FleetProvisioningByClaim": {"configuration": {}}}
    services = with_plugin(tmp_path, FAILING) | by_claim
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"services": services}))
    command = [sys.executable, "-m", "nucleus", "--root", str(tmp_path)]

    ended = subprocess.run(command, capture_output=True, timeout=30, check=False)

    assert ended.returncode == 1
    assert b"more than one way to provision" in ended.stderr
