"""Behaviour 71, second half: a local shadow reaches the cloud and back (shadow-2-T1), also after the configuration was
reset and merged again (shadow-6-T1)."""

from __future__ import annotations

import json

import pytest

from tests.whole.conftest import component, system, thing  # noqa: F401  fixtures
from tests.whole.test_shadows import REAL_TIME, deploy, start
from tools import system as systems

pytestmark = pytest.mark.whole


def test_71_sync_when_either_side_changes_deletes_or_makes_anew_then_the_other_follows(
    system: systems.System,  # noqa: F811
    thing: str,  # noqa: F811
    component: str,  # noqa: F811
) -> None:
    """With what issue 98 of the original was about: a shadow made anew stays."""
    here, there = start(system, thing, component, REAL_TIME)
    try:
        here.update({"reported": {"a": 1}})
        there.becomes({"reported": {"a": 1}})
        there.update({"desired": {"a": 2}})
        here.becomes({"desired": {"a": 2}, "reported": {"a": 1}})

        there.delete()
        here.becomes(None)
        there.update({"desired": {"b": 1}})
        here.becomes({"desired": {"b": 1}})
        there.becomes({"desired": {"b": 1}})

        here.delete()
        there.becomes(None)
        here.update({"reported": {"c": 1}})
        there.becomes({"reported": {"c": 1}})
        here.becomes({"reported": {"c": 1}})
    finally:
        here.close()
        there.close()


def test_71_sync_when_the_configuration_changes_and_is_reset_then_it_holds_without_a_restart(
    system: systems.System,  # noqa: F811
    thing: str,  # noqa: F811
    component: str,  # noqa: F811
) -> None:
    here, there = start(system, thing, component, REAL_TIME | {"strategy": {"type": "periodic", "delay": 1}})
    try:
        here.update({"reported": {"a": 1}})
        there.becomes({"reported": {"a": 1}})
        deploy(system, thing, component, reset=[""])
        here.update({"reported": {"a": 2}})
        deploy(system, thing, component, merge=json.dumps(REAL_TIME | {"strategy": {"type": "realTime"}}))
        there.becomes({"reported": {"a": 2}})
        one_way = {"synchronize": REAL_TIME["synchronize"] | {"direction": "cloudToDevice"}}
        deploy(system, thing, component, merge=json.dumps(one_way))
        here.update({"reported": {"a": 3}})
        there.update({"desired": {"a": 1}})
        here.becomes({"desired": {"a": 1}, "reported": {"a": 2}})
    finally:
        here.close()
        there.close()
