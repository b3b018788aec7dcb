"""What the token exchange answers and how long it stays."""

from __future__ import annotations

import json

import pytest

from nucleus.core import credentials

NOW_MS = 1_700_000_000_000  # 2023-11-14T22:13:20Z
GOOD = {"accessKeyId": "ASIA1", "secretAccessKey": "s", "sessionToken": "t", "expiration": "2023-11-14T23:13:20Z"}


def _body(**changes: str) -> bytes:
    return json.dumps({"credentials": GOOD | changes}).encode()


def test_judge_when_credentials_come_then_container_format_until_five_minutes_before_the_end() -> None:
    found = credentials.judge(200, _body(), NOW_MS, credentials.Retry())

    assert json.loads(found.body) == {
        "AccessKeyId": "ASIA1",
        "SecretAccessKey": "s",
        "Token": "t",
        "Expiration": GOOD["expiration"],
    }
    assert (found.status, found.expires_ms, found.fresh_until_ms) == (200, NOW_MS + 3_600_000, NOW_MS + 3_300_000)


@pytest.mark.parametrize(
    ("status", "body", "answered", "seconds", "text"),
    [
        (403, b"no", 403, 120, "refused (403): no"),
        (503, b"", 503, 60, "fault (503)"),
        (0, b"no route", 500, 300, "no route"),
        (302, b"", 500, 300, ""),
        (200, b"{}", 500, 300, "no credentials"),
        (200, b"[", 500, 300, "no credentials"),
        (200, _body(expiration="soon"), 500, 300, "no credentials"),
        (200, _body(expiration="2023-11-14T22:00:00Z"), 500, 300, "check this device's clock"),
    ],
)
def test_judge_when_it_failed_then_remembered_by_its_kind(
    status: int, body: bytes, answered: int, seconds: int, text: str
) -> None:
    found = credentials.judge(status, body, NOW_MS, credentials.Retry())

    assert (found.status, found.expires_ms) == (answered, 0)
    assert found.fresh_until_ms == NOW_MS + seconds * 1000
    assert text in json.loads(found.body)["message"]


def test_retry_when_configured_then_kept_within_bounds() -> None:
    given = {"credentialRetryInSec": {"clientError": 1, "serverError": "99999", "unknownError": "x"}}

    assert credentials.retry(given) == credentials.Retry(10, 42_900, 300)
    assert credentials.retry({"credentialRetryInSec": 7}) == credentials.Retry()
