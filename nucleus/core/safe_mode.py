"""SAFE_MODE: the way back took the nucleus down, too, so only what is known to be good starts, or nothing at all.

Facts are leaves of the configuration, written before the first process starts. A deployment that succeeds ends it.
"""

from __future__ import annotations

from collections.abc import Mapping

from nucleus.core import component, configuration

PATH = ("services", "DeploymentService", "runtime", "safeMode")
MAX_RETURNS = 3  # the third launch that finds the same way back undecided gives it up
MAX_LAUNCHES = 3  # the third launch in safe mode within STEADY_S of the one before starts no component at all
STEADY_S = 60.0  # a launch that lasted this long did not fail


def why(tree: configuration.Tree) -> str:
    """Why the device is in SAFE_MODE; "" if it is not."""
    try:
        return str(configuration.get(tree, (*PATH, "why")))
    except KeyError:
        return ""


def entered(reason: str, stamp: int) -> tuple[configuration.Change, ...]:
    return (configuration.Change((*PATH, "why"), reason, stamp, "nucleus"),)


def left(stamp: int) -> tuple[configuration.Change, ...]:
    return (configuration.Change(PATH, stamp=stamp, removed=True),)


def launched(tree: configuration.Tree, now_s: float, stamp: int) -> tuple[configuration.Change, ...]:
    """Counts a launch in safe mode; one long after the last, whatever the clock did, counts as the first."""
    steady = abs(now_s - _number(tree, "launchedAt")) > STEADY_S
    count = 1 if steady else _number(tree, "launches") + 1
    return (
        configuration.Change((*PATH, "launches"), count, stamp, "nucleus"),
        configuration.Change((*PATH, "launchedAt"), now_s, stamp, "nucleus"),
    )


def allowed(
    tree: configuration.Tree, installed: Mapping[str, component.Component], good: Mapping[str, str]
) -> frozenset[str]:
    """Names of the components that may start. `good`: the versions of the last deployment that succeeded."""
    if not why(tree):
        return frozenset(installed)
    if _number(tree, "launches") >= MAX_LAUNCHES:
        return frozenset()
    return frozenset(name for name, one in installed.items() if good.get(name) == one.version)


def _number(tree: configuration.Tree, key: str) -> float:
    try:
        return float(configuration.get(tree, (*PATH, key)))
    except (KeyError, TypeError, ValueError):
        return 0.0
