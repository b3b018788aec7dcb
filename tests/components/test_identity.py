"""Who may change what the agent serves: real agents, asked over their socket, with a real nucleus socket behind them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import agent_identity
import model_client
import pytest

from nucleus.ipc import connection
from tests.components import parts
from tests.nucleus import fakes_ipc

AGENT, OTHER = "marram.ModelAgent", "com.example.Other"


class Scene:
    """An agent that a nucleus started, and two components beside it; the model's own serves 1.0.0."""

    def __init__(self, device: parts.Device, world: fakes_ipc.World, agent: str = AGENT, *options: str) -> None:
        self.device, self.world = device, world
        self.tokens = {name: world.do(world.add, name) for name in (agent, parts.MODEL_NAME, OTHER)}
        self.environment = {
            "SVCUID": self.tokens[agent],
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(world.path),
        }
        device.start_agent(*options, environment=self.environment)

    def ask(self, verb: str, component: str = parts.MODEL_NAME, token: str = "", version: str = "1.0.0") -> Any:
        folder = str(parts.MODEL / version)
        request = {"op": verb, "component": component, "version": version, "artifacts": folder, "token": token}
        return parts.ask(self.device, request)

    def served(self) -> list[tuple[str, str]]:
        return [(each["component"], each["version"]) for each in parts.serving(self.device)]


@pytest.fixture
def world(device: parts.Device) -> Iterator[fakes_ipc.World]:
    made = fakes_ipc.World(device.root / "ipc.socket", connection.Limits())
    with fakes_ipc.serving_in_thread(made):
        yield made


def test_offer_when_its_script_has_the_components_token_then_served(
    device: parts.Device, world: fakes_ipc.World, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(device, world)

    monkeypatch.setenv("SVCUID", scene.tokens[parts.MODEL_NAME])
    done = device.offer("1.0.0")

    assert (done.returncode, scene.served()) == (0, [(parts.MODEL_NAME, "1.0.0")])


@pytest.mark.parametrize(
    ("verb", "token", "code"),
    [
        ("offer", "", "UNAUTHENTICATED"),
        ("offer", "token-com.example.Nobody", "UNAUTHENTICATED"),
        ("offer", f"token-{OTHER}", "PERMISSION_DENIED"),
        ("withdraw", f"token-{OTHER}", "PERMISSION_DENIED"),
        ("withdraw", "", "UNAUTHENTICATED"),
        ("release", f"token-{OTHER}", "PERMISSION_DENIED"),
        ("release", "x" * 5000, "UNAUTHENTICATED"),
    ],
)
def test_change_when_the_token_is_not_the_components_then_refused_and_the_model_answers_on(
    shared: Scene, verb: str, token: str, code: str
) -> None:
    reply = shared.ask(verb, token=token, version="1.0.0" if verb != "offer" else "1.1.0")

    assert (reply["ok"], reply["code"]) == (False, code)
    client = model_client.Client(str(shared.device.socket))
    assert parts.predict(client).version == "1.0.0"
    client.close()
    assert [row["released"] for row in parts.serving(shared.device)] == [False]


@pytest.fixture(scope="module")
def shared() -> Iterator[Scene]:
    """One agent for all attempts of a module: none may change it."""
    with parts.device() as made:
        world = fakes_ipc.World(made.root / "ipc.socket", connection.Limits())
        with fakes_ipc.serving_in_thread(world):
            scene = Scene(made, world)
            assert scene.ask("offer", token=scene.tokens[parts.MODEL_NAME])["ok"]
            yield scene


def test_offer_when_the_alias_is_anothers_then_refused_although_the_token_is_its_own(shared: Scene) -> None:
    reply = shared.ask("offer", component=OTHER, token=shared.tokens[OTHER], version="1.1.0")

    assert not reply["ok"]
    assert "belongs to" in reply["message"]
    assert shared.served() == [(parts.MODEL_NAME, "1.0.0")]


def test_change_when_the_nucleus_is_away_then_known_tokens_count_and_others_shall_ask_again(
    device: parts.Device, world: fakes_ipc.World
) -> None:
    scene = Scene(device, world)
    known = scene.tokens[parts.MODEL_NAME]
    assert scene.ask("offer", token=known)["ok"]

    world.path.unlink()  # nobody can connect any more

    assert scene.ask("release", token=known)["ok"]
    assert scene.ask("release", component=OTHER, token=scene.tokens[OTHER])["code"] == "BUSY"


def test_change_when_the_nucleus_does_not_say_whose_a_token_is_then_the_user_counts_and_the_log_says_so(
    device: parts.Device, world: fakes_ipc.World
) -> None:
    scene = Scene(device, world, "com.example.AgentElsewhere")  # to whom our nucleus says no more than a foreign one

    replies = [scene.ask("offer", token=token) for token in ("anything", "")]

    assert [reply.get("code", "OK") for reply in replies] == ["OK", "UNAUTHENTICATED"]
    assert "callers are known by their user only" in device.log(AGENT)


def test_change_when_the_configuration_goes_by_the_user_then_no_token_is_needed(
    device: parts.Device, world: fakes_ipc.World
) -> None:
    scene = Scene(device, world, AGENT, "--callers", "sameUser")

    assert scene.ask("offer")["ok"]
    assert "callers: sameUser" in device.log(AGENT)


OWNED = {"alias": "power-curve"}


@pytest.mark.parametrize(
    ("verb", "header", "code"),
    [
        ("release_hold", OWNED, ""),
        ("release_hold", OWNED | {"token": "token-model"}, ""),
        ("release_hold", OWNED | {"token": "token-other"}, "PERMISSION_DENIED"),
        ("release_hold", OWNED | {"token": 5}, "UNAUTHENTICATED"),
        ("capture", OWNED | {"token": "token-other"}, ""),
        ("apply_bundle", OWNED | {"component": "other", "token": "token-model"}, "PERMISSION_DENIED"),
        ("release_bundle", OWNED | {"component": "other", "token": "token-model"}, "PERMISSION_DENIED"),
        ("take_over", {"token": "token-agent"}, ""),
        ("take_over", {"token": "token-model"}, "PERMISSION_DENIED"),
        ("take_over", {}, "UNAUTHENTICATED"),
    ],
)
def test_may_when_it_is_about_the_device_or_the_agent_then_local_users_owners_and_the_agent(
    verb: str, header: dict[str, Any], code: str
) -> None:
    callers = agent_identity.Callers(
        {"power-curve": "model"}.__getitem__, lambda token: token.removeprefix("token-"), own_token="token-agent"
    )
    ours, theirs = socket.socketpair()

    with ours, theirs:
        assert _code(callers, verb, header, ours) == code


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as somebody else")
def test_may_when_another_user_connects_then_denied_without_a_token(device: parts.Device) -> None:
    device.root.chmod(0o755)
    path = device.root / "open.sock"
    program = f"import os, socket; os.setuid(65534); s = socket.socket(1); s.connect({str(path)!r}); s.recv(1)"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        somebody = subprocess.Popen([sys.executable, "-I", "-c", program])
        connected = listener.accept()[0]
        callers = agent_identity.Callers(str, None)
        codes = [_code(callers, verb, OWNED | {"component": "model"}, connected) for verb in ("offer", "release_hold")]
        connected.close()
        somebody.wait(parts.WAIT_S)

    assert codes == ["PERMISSION_DENIED"] * 2


def test_component_when_asked_again_and_again_then_the_nucleus_is_asked_once_and_few_are_kept() -> None:
    asked: list[str] = []

    def ask(token: str) -> str:
        asked.append(token)
        return token.upper()

    callers = agent_identity.Callers(str, ask)
    many = [str(number) for number in range(agent_identity.KEPT_LIMIT + 1)]

    assert [callers.component("a") for _ in range(3)] == ["A"] * 3
    assert asked == ["a"]
    assert [callers.component(one) for one in many] == many
    callers.component("a")
    assert asked.count("a") == 2  # pushed out by the others


def _code(callers: agent_identity.Callers, verb: str, header: dict[str, Any], peer: socket.socket) -> str:
    try:
        callers.may(verb, header, peer)
    except agent_identity.IdentityError as error:
        return error.code
    return ""


def test_bundle_when_the_local_user_applies_it_then_served_and_no_component_may(
    device: parts.Device, world: fakes_ipc.World
) -> None:
    scene = Scene(device, world)

    refused = [scene.ask("apply_bundle", token=token) for token in (scene.tokens[OTHER], "token-nobody")]
    applied = scene.ask("apply_bundle")
    taken = scene.ask("offer", token=scene.tokens[parts.MODEL_NAME], version="1.1.0")
    withdrawn = scene.ask("withdraw", token=scene.tokens[parts.MODEL_NAME])

    assert [reply["code"] for reply in refused] == ["PERMISSION_DENIED", "UNAUTHENTICATED"]
    assert (applied["ok"], taken["code"], withdrawn["ok"]) == (True, "FAILED_PRECONDITION", True)
    assert [(row["serving"], row["owner"]) for row in parts.serving(device)] == [("1.0.0", "bundle")]


def test_door_when_a_component_sends_its_own_token_then_it_may_load(
    device: parts.Device, world: fakes_ipc.World
) -> None:
    scene = Scene(device, world, AGENT, "--oip-http", "127.0.0.1:0")
    shutil.copytree(parts.MODEL / "1.1.0", device.work(AGENT) / "repository" / "power-curve")
    address = device.log(AGENT).partition("REST on ")[2].split()[0]

    def load(token: str) -> int:
        url = f"http://{address}/v2/repository/models/power-curve/load"
        request = urllib.request.Request(url, b"{}", {"marram-token": token})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    codes = [load(token) for token in ("token-nobody", "", scene.tokens[OTHER])]

    assert codes == [401, 401, 200]
    assert scene.served() == [("marram:repository", "1.1.0")]
