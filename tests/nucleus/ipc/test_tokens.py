"""ValidateAuthorizationToken for the unmodified official client: who may ask, and what about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import awsiot.greengrasscoreipc
import pytest
from awsiot.greengrasscoreipc import clientv2, model

from nucleus.ipc import client, connection, tokens
from tests.nucleus import fakes_ipc


@pytest.fixture
async def world(socket_path: Path) -> AsyncIterator[fakes_ipc.World]:
    one = fakes_ipc.World(socket_path, connection.Limits())
    one.add("app")
    one.add(tokens.STREAM_MANAGER)
    one.add(tokens.MODEL_AGENT)
    async with fakes_ipc.serving(one):
        yield one


async def ask(world: fakes_ipc.World, caller: str, token: str) -> model.ValidateAuthorizationTokenResponse:
    return await asyncio.to_thread(_ask, world.path, caller, token)


def _ask(path: Path, caller: str, token: str) -> model.ValidateAuthorizationTokenResponse:
    low = awsiot.greengrasscoreipc.connect(ipc_socket=str(path), authtoken=f"token-{caller}", timeout=10)
    client = clientv2.GreengrassCoreIPCClientV2(client=low)
    try:
        return client.validate_authorization_token(token=token)
    finally:
        client.close().result(10)


async def test_validate_when_a_component_has_the_token_then_valid(world: fakes_ipc.World) -> None:
    for name in ("app", tokens.STREAM_MANAGER):
        assert (await ask(world, tokens.STREAM_MANAGER, f"token-{name}")).is_valid is True


@pytest.mark.parametrize("token", ["", "WRONG", "token-app "])
async def test_validate_when_no_component_has_the_token_then_invalid_and_it_is_not_repeated(
    world: fakes_ipc.World, token: str
) -> None:
    with pytest.raises(model.InvalidTokenError) as caught:
        await ask(world, tokens.STREAM_MANAGER, token)

    assert not token or token not in caught.value.message


async def test_validate_when_another_component_asks_then_unauthorized_whatever_the_token(
    world: fakes_ipc.World,
) -> None:
    for token in ("token-app", "WRONG"):
        with pytest.raises(model.UnauthorizedError) as caught:
            await ask(world, "app", token)
        assert tokens.STREAM_MANAGER in caught.value.message


async def test_validate_when_the_model_agent_asks_then_told_whose_token_it_is(world: fakes_ipc.World) -> None:
    def plain(caller: str, token: str) -> dict[str, object]:
        with client.Client(str(world.path), f"token-{caller}") as ipc:
            return ipc.call("ValidateAuthorizationToken", {"token": token})

    asked = [(tokens.MODEL_AGENT, "token-app"), (tokens.STREAM_MANAGER, "token-app")]
    answers = [await asyncio.to_thread(plain, *one) for one in asked]

    assert answers == [{"isValid": True, "componentName": "app"}, {"isValid": True}]
    assert (await ask(world, tokens.MODEL_AGENT, "token-app")).is_valid is True  # the official client skips the rest
    with pytest.raises(client.IPCError) as caught:
        await asyncio.to_thread(plain, tokens.MODEL_AGENT, "WRONG")
    assert caught.value.code == "InvalidTokenError"
