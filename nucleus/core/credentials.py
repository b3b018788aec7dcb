"""What the token exchange answers and for how long (spec/nucleus.md 10, spec/cloud.md 5)."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

EARLY_MS = 300_000  # credentials are asked for again this long before they expire
_SHORTEST_S, _LONGEST_S = 10, 42_900


class Retry(Struct, frozen=True):
    """For how many seconds a failure is remembered, by its kind (`credentialRetryInSec`)."""

    client_error_s: int = 120
    server_error_s: int = 60
    unknown_error_s: int = 300


class Answer(Struct, frozen=True):
    """`fresh_until_ms` is when to ask again, `expires_ms` when credentials end (0 for a failure); device clock."""

    status: int
    body: bytes
    fresh_until_ms: int
    expires_ms: int = 0


def retry(configuration: Mapping[str, Any]) -> Retry:
    """From the configuration of `aws.greengrass.TokenExchangeService`; what is out of bounds is brought in."""
    given = configuration.get("credentialRetryInSec")
    given = given if isinstance(given, dict) else {}
    usual = Retry()
    return Retry(
        _seconds(given.get("clientError"), usual.client_error_s),
        _seconds(given.get("serverError"), usual.server_error_s),
        _seconds(given.get("unknownError"), usual.unknown_error_s),
    )


def judge(status: int, body: bytes, now_ms: int, wait: Retry) -> Answer:
    """The answer to components for an answer of the cloud (`status` 0: there was none, `body` says why)."""
    if status == 200:
        return _credentials(body, now_ms, wait)
    text = body.decode(errors="replace")[:500]
    if 400 <= status < 500:
        seconds, why = wait.client_error_s, f"the cloud refused ({status}): {text}"
    elif 500 <= status < 600:
        seconds, why = wait.server_error_s, f"the cloud has a fault ({status}): {text}"
    else:
        seconds, why = wait.unknown_error_s, text
    return Answer(status if status >= 400 else 500, _message(why), now_ms + seconds * 1000)


def _credentials(body: bytes, now_ms: int, wait: Retry) -> Answer:
    try:
        found = json.loads(body)["credentials"]
        ends = str(found["expiration"])
        answer = {
            "AccessKeyId": str(found["accessKeyId"]),
            "SecretAccessKey": str(found["secretAccessKey"]),
            "Token": str(found["sessionToken"]),
            "Expiration": ends,
        }
        expires_ms = int(datetime.datetime.fromisoformat(ends).timestamp() * 1000)
    except (ValueError, KeyError, TypeError, OverflowError):
        return judge(0, b"the cloud's answer holds no credentials", now_ms, wait)
    if expires_ms <= now_ms:
        return judge(0, f"the credentials ended at {ends}: check this device's clock".encode(), now_ms, wait)
    return Answer(200, json.dumps(answer).encode(), max(expires_ms - EARLY_MS, now_ms), expires_ms)


def _message(why: str) -> bytes:
    return json.dumps({"message": f"cannot give credentials: {why}"}).encode()


def _seconds(given: Any, usual_s: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return usual_s
    try:
        return min(max(int(given), _SHORTEST_S), _LONGEST_S)
    except (ValueError, OverflowError):
        return usual_s
