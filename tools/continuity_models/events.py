"""The events, by name: what is done to a world, for ours and for the sample; None where a column has no such thing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from msgspec import Struct

from tools.continuity_models import world

Act = Callable[[world.World], None]
_DAMAGED = "3.0.0"
_ROLLED_BACK = "FAILED"


class Event(Struct, frozen=True):
    """`ours` and `sample` do it and return when it is over."""

    name: str
    ours: Act | None
    sample: Act | None


def _deploy(*, expect: str = "SUCCEEDED", remove: tuple[str, ...] = (), **components: str) -> Act:
    names = {"detector": world.DETECTOR, "cnn": world.CNN, "other": world.OTHER_CNN, "broken": world.BROKEN}
    names |= {"application": world.APPLICATION, "agent": world.AGENT}
    wanted = {names[key]: version for key, version in components.items()}
    return lambda one: one.deploy(wanted, remove=remove, expect=expect)


def _kill(component: str) -> Act:
    return lambda one: one.kill_component(component)


def _restart(one: world.World) -> None:
    one.nucleus.restart()


def events(broker_s: float) -> Iterator[Event]:
    """In this order: each begins with what the one before left."""
    update = _deploy(detector="2.1.0", cnn="1.1.0")
    yield Event("model updated", update, update)
    yield Event(
        "model refused, rolled back",
        _deploy(detector=_DAMAGED, expect=_ROLLED_BACK),
        _serve_damaged,
    )
    yield Event("application updated", _deploy(application="1.1.0"), _deploy(application="1.1.0"))
    yield Event("agent updated", _deploy(agent="1.0.1"), None)
    yield Event("agent SIGKILLed (sample: the application)", _kill(world.AGENT), _kill(world.APPLICATION))
    yield Event("nucleus restarted", _restart, _restart)
    yield Event("nucleus SIGKILLed", world.World.kill_nucleus, world.World.kill_nucleus)
    away = functools.partial(_without_service, broker_s)
    yield Event(f"broker and service down {broker_s:g} s", away, away)
    back = _deploy(detector="2.2.0", broken="1.0.0", expect=_ROLLED_BACK)
    yield Event("deployment rolled back", back, back)
    yield Event(
        "component A replaced by B, one alias",
        _deploy(other="1.2.0", remove=(world.CNN,)),
        _deploy(other="1.2.0", application="2.0.0", remove=(world.CNN,)),
    )


def _serve_damaged(one: world.World) -> None:
    """Nobody looks whether a model works: it is deployed, and serves, until somebody brings the old one back; here at once."""
    one.deploy({world.DETECTOR: _DAMAGED})
    one.deploy({world.DETECTOR: "2.1.0"})


def _without_service(seconds: float, one: world.World) -> None:
    one.without_service(seconds)
