"""Which version a device is given, and what it is told when there is none."""

from __future__ import annotations

import json

import pytest

from cloud.core import candidates
from nucleus.core import errors

LINUX = {"os": "linux", "architecture": "amd64"}


def _offer(version: str, platform: dict[str, str] | None = None) -> candidates.Offer:
    recipe = {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": "c",
        "ComponentVersion": version,
        "Manifests": [{"Platform": platform or {}}],
    }
    return candidates.Offer(version, f"arn:{version}", json.dumps(recipe))


@pytest.mark.parametrize(
    ("requirements", "wanted"),
    [
        ({}, "2.0.0"),
        ({"a": "*"}, "2.0.0"),
        ({"a": "^1.0.0"}, "1.10.0"),
        ({"a": "^1.0.0", "b": "<1.10.0"}, "1.2.0"),
        ({"thinggroup/g": "=1.0.0"}, "1.0.0"),
        ({"thinggroup/g": "=3.0.0-rc.1", "b": "*"}, "3.0.0-rc.1"),
    ],
)
def test_select_when_ranges_fit_then_the_highest(requirements: dict[str, str], wanted: str) -> None:
    offers = [_offer(version) for version in ("1.2.0", "1.10.0", "1.0.0", "2.0.0", "3.0.0-rc.1")]

    chosen = candidates.select("c", requirements, LINUX, offers)

    assert isinstance(chosen, candidates.Offer)
    assert chosen.version == wanted


def test_select_when_the_highest_does_not_run_there_then_the_next() -> None:
    offers = [_offer("1.0.0", {"os": "linux"}), _offer("2.0.0", {"os": "windows"})]

    chosen = candidates.select("c", {}, LINUX, offers)

    assert isinstance(chosen, candidates.Offer)
    assert chosen.version == "1.0.0"


def test_select_when_no_range_fits_then_requirers_and_versions_are_named() -> None:
    refused = candidates.select("c", {"a": "^2.0.0", "b": "=1.0.0"}, LINUX, [_offer("1.0.0"), _offer("2.0.0")])

    assert isinstance(refused, candidates.Refusal)
    assert "no usable version" in refused.message
    assert all(part in refused.message for part in ("a requires ^2.0.0", "b requires =1.0.0", "2.0.0, 1.0.0"))
    assert "claim platform" not in refused.message


def test_select_when_no_platform_fits_then_the_platform_is_named() -> None:
    refused = candidates.select("c", {}, LINUX, [_offer("1.0.0", {"os": "windows"})])

    assert isinstance(refused, candidates.Refusal)
    assert "claim platform architecture=amd64, os=linux" in refused.message
    assert "no usable version" not in refused.message


def test_select_when_a_range_is_unreadable_then_an_error() -> None:
    with pytest.raises(errors.NucleusError):
        candidates.select("c", {"a": "one"}, LINUX, [_offer("1.0.0")])
