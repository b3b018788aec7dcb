"""Local publish/subscribe between components (spec/ipc.md 3.3).

What flows in: publications and subscriptions of IPC connections. What flows out: one call of `deliver` for each
matching subscription, in the order of publication. Nothing is stored: the bound on what a slow subscriber may pile up
is its connection's (ipc/connection.py). Messages are opaque here. All on the loop's thread, without waiting.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from nucleus.core import topics

ALL = "RECEIVE_ALL_MESSAGES"
OTHERS = "RECEIVE_MESSAGES_FROM_OTHERS"
MATCHES_KEPT = 1024  # topics whose subscribers are remembered; a device uses tens

Deliver = Callable[[str, bytes], None]


class _Subscription(Struct, eq=False):
    component: str
    others_only: bool
    deliver: Deliver


class Broker:
    """Who listens to what, and the delivery to them."""

    def __init__(self) -> None:
        self._filters: topics.Trie[_Subscription] = topics.Trie()
        self._matches: dict[str, tuple[_Subscription, ...]] = {}

    def subscribe(self, filter_: str, mode: str, component: str, deliver: Deliver) -> Callable[[], None]:
        """Delivers matching messages until the returned function is called (twice is harmless).

        The empty mode means: from others for a filter with wildcards, all messages for a plain topic.
        """
        subscription = _Subscription(component, mode == OTHERS or (not mode and topics.has_wildcard(filter_)), deliver)
        self._filters.add(filter_, subscription)
        self._matches.clear()
        open_ = [subscription]

        def cancel() -> None:
            if open_:
                self._filters.remove(filter_, open_.pop())
                self._matches.clear()

        return cancel

    def publish(self, topic: str, message: bytes, publisher: str) -> int:
        """Delivers to every matching subscription and returns how many there were."""
        subscriptions = self._matches.get(topic)
        if subscriptions is None:
            subscriptions = self._match(topic)
        delivered = 0
        for subscription in subscriptions:
            if subscription.others_only and subscription.component == publisher:
                continue
            subscription.deliver(topic, message)
            delivered += 1
        return delivered

    def _match(self, topic: str) -> tuple[_Subscription, ...]:
        if len(self._matches) >= MATCHES_KEPT:
            self._matches.clear()
        found = self._matches[topic] = tuple(self._filters.match(topic))
        return found
