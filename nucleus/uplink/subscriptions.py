"""Who takes which messages of the cloud's broker, and which filters the broker must know for it.

A filter that a wider one covers is not subscribed at the broker: it would deliver such a message twice. (So messages that the
broker retains come only to who subscribes first, as in the original.) `confirmed` is what the session at the broker holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from nucleus.core import topics

Deliver = Callable[[Any], None]
Sink = tuple[int, Deliver]  # QoS and taker


class Subscriptions:
    """Changes nothing at the broker: the connection does, and tells how it went."""

    def __init__(self, confirmed: Collection[str] = ()) -> None:
        self._sinks: dict[str, list[Sink]] = {}
        self._confirmed: dict[str, int] = dict.fromkeys(confirmed, 1)
        self._refused: set[str] = set()

    @property
    def confirmed(self) -> Mapping[str, int]:
        """Filters whose SUBACK has come, and their QoS."""
        return self._confirmed

    def add(self, filter_: str, sink: Sink) -> None:
        self._sinks.setdefault(filter_, []).append(sink)

    def remove(self, filter_: str, sink: Sink) -> bool:
        """True if that was the filter's last one. Twice is harmless."""
        known = self._sinks.get(filter_, [])
        if sink not in known:
            return False
        known.remove(sink)
        if known:
            return False
        del self._sinks[filter_]
        return True

    def confirm(self, filter_: str, qos: int) -> None:
        self._confirmed[filter_] = qos
        self._refused.discard(filter_)

    def refuse(self, filter_: str) -> None:
        """The broker does not give it: until the next connection it is not asked again, and stands for no other."""
        self._refused.add(filter_)

    def connected(self, *, session_present: bool) -> None:
        """Begins anew with what the session at the broker holds."""
        self._refused.clear()
        if not session_present:
            self._confirmed.clear()

    def forget(self, filter_: str) -> None:
        self._confirmed.pop(filter_, None)

    def request(self, filter_: str) -> tuple[str, int] | None:
        """What to subscribe at the broker so that the filter's takers get theirs; None: nothing, it has it.

        A wider filter whose QoS is too low is asked for again with a higher one.
        """
        qos = self._qos(filter_)
        for wide, known in self._confirmed.items():
            if wide in self._sinks and topics.covers(wide, filter_):
                return None if known >= qos else (wide, qos)
        return filter_, qos

    def narrower(self, filter_: str) -> list[str]:
        """Confirmed filters that this one makes needless."""
        return [one for one in self._confirmed if one != filter_ and topics.covers(filter_, one)]

    def to_subscribe(self) -> dict[str, int]:
        """Filter and QoS of everything the broker must hold and does not."""
        return {
            one: max(self._qos(other) for other in self._sinks if topics.covers(one, other))
            for one in self._sinks
            if one not in self._confirmed and one not in self._refused and not self._is_covered(one)
        }

    def count_with(self, filter_: str, asked: Collection[str]) -> int:
        """How many filters the broker holds, or will hold, with this one; `asked` are being subscribed."""
        known = {*self._confirmed, *self.to_subscribe(), *asked}
        return len(known) + (not any(topics.covers(one, filter_) for one in known))

    def to_unsubscribe(self) -> list[str]:
        """What the broker holds and nobody needs any more."""
        return [one for one in self._confirmed if one not in self._sinks]

    def takers(self, topic: str) -> list[Deliver]:
        matching = [sinks for filter_, sinks in self._sinks.items() if topics.matches(filter_, topic, mqtt=True)]
        return [deliver for sinks in matching for _, deliver in sinks]

    def _qos(self, filter_: str) -> int:
        return max((qos for qos, _ in self._sinks.get(filter_, ())), default=0)

    def _is_covered(self, filter_: str) -> bool:
        wider = (one for one in self._sinks if one != filter_ and one not in self._refused)
        return any(topics.covers(one, filter_) for one in wider)
