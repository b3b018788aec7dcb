from __future__ import annotations

from typing import Any

import pytest

from nucleus.core import log_settings


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ("INFO", "TEXT", 1024, 10_240)),
        ("loud", ("INFO", "TEXT", 1024, 10_240)),
        ({"level": "debug", "format": "json"}, ("DEBUG", "JSON", 1024, 10_240)),
        ({"level": "TRACE"}, ("DEBUG", "TEXT", 1024, 10_240)),
        ({"level": "silent", "format": "XML"}, ("INFO", "TEXT", 1024, 10_240)),
        ({"fileSizeKB": "64", "totalLogsSizeKB": 128}, ("INFO", "TEXT", 64, 128)),
        ({"fileSizeKB": 2048, "totalLogsSizeKB": 1}, ("INFO", "TEXT", 2048, 2048)),
        ({"fileSizeKB": -1, "totalLogsSizeKB": "much"}, ("INFO", "TEXT", 1024, 10_240)),
        ({"fileSizeKB": 1e400}, ("INFO", "TEXT", 1024, 10_240)),
    ],
)
def test_read_when_settings_are_given_then_what_cannot_be_used_is_as_if_absent(given: Any, expected: Any) -> None:
    assert log_settings.read({"logging": given}) == log_settings.LogSettings(*expected)
