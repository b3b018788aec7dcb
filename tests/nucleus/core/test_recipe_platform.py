"""Platform claims against device attributes (spec/nucleus.md 1.4)."""

from __future__ import annotations

import pytest

from nucleus.core import recipe_platform

LINUX = {"os": "linux", "architecture": "aarch64", "architecture.detail": "armv8l"}


@pytest.mark.parametrize(
    ("claims", "fits"),
    [
        ({}, True),
        ({"os": "linux"}, True),
        ({"os": "Linux"}, False),
        ({"os": "windows"}, False),
        ({"os": "*"}, True),
        ({"os": None}, True),
        ({"os": "all"}, True),
        ({"os": "ANY"}, True),
        ({"architecture": "any"}, True),
        ({"architecture.detail": "any"}, False),
        ({"os": "linux", "architecture": "amd64"}, False),
        ({"architecture": "/arm|aarch64/"}, True),
        ({"architecture": "/arm/"}, False),
        ({"architecture": "/aarch/"}, False),
        ({"architecture": "/aarch.*/"}, True),
        ({"architecture": "//"}, False),
        ({"architecture": "/"}, False),
        ({"architecture": "+aarch64"}, False),
        ({"runtime": "*"}, True),
        ({"runtime": None}, True),
        ({"runtime": "aws_nucleus_lite"}, False),
        ({"runtime": "/.*/"}, False),
        ({"architecture.detail": "armv8l"}, True),
    ],
)
def test_matches_when_claims_meet_attributes_then_as_the_original(claims: dict[str, str | None], fits: bool) -> None:
    assert recipe_platform.matches(claims, LINUX) is fits


def test_matches_when_attribute_begins_with_no_letter_or_digit_then_no_exact_match() -> None:
    assert not recipe_platform.matches({"site": "-north"}, {"site": "-north"})


def test_select_when_selections_leave_nothing_then_the_phase_is_gone() -> None:
    lifecycle = {"run": {"linux": "x"}, "install": {"Script": {"linux": "y"}}}

    assert recipe_platform.select(lifecycle, {"linux"}, ()) == {"install": {}}
