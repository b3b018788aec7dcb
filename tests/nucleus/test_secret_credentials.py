"""The credentials with which the nucleus itself asks for secrets: those of the role alias, or a reason for people."""

from __future__ import annotations

from pathlib import Path

import pytest

from nucleus import plugins
from nucleus.uplink import dataplane, secretsmanager
from tests.nucleus.actors import test_token_exchange


async def test_credentials_when_the_role_alias_gives_some_then_these_and_they_are_shared(tmp_path: Path) -> None:
    async with test_token_exchange.exchange(tmp_path) as one:
        found = [await plugins._credentials(one.parts) for _ in range(3)]

    assert set(found) == {secretsmanager.Credentials("ASIA1", "s", "t")}
    assert one.asked == 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((403, b'{"message": "no policy"}'), "CREDENTIAL_ENDPOINT_AUTH_FAILURE"),
        ((500, b"out of order"), "NETWORK_ERROR"),
        ((-1, b""), "NETWORK_ERROR"),
    ],
)
async def test_credentials_when_refused_then_to_be_tried_again_with_the_reason(
    tmp_path: Path, answer: tuple[int, bytes], code: str
) -> None:
    async with test_token_exchange.exchange(tmp_path) as one:
        one.answers = [answer]
        with pytest.raises(dataplane.Unavailable, match="cannot ask for secrets") as caught:
            await plugins._credentials(one.parts)

    assert caught.value.code == code


async def test_credentials_when_the_device_has_no_role_then_it_says_what_to_set() -> None:
    with pytest.raises(dataplane.Unavailable, match="iotRoleAlias"):
        await plugins._credentials(None)
