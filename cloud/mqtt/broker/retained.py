"""Retained messages: the last one of each topic, in memory and in the journal, bounded in number and bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cloud.core import subscriptions
from cloud.mqtt.broker import journal, limits, messages


class Retained:
    """A message without payload clears its topic; one beyond the bounds is not kept (and `put` says so)."""

    def __init__(self, to: journal.Journal, totals: limits.Totals) -> None:
        self._journal = to
        self._totals = totals
        self._by_topic: dict[str, messages.Message] = {}
        self._bytes = 0

    def restore(self, stored: Iterable[messages.Message]) -> None:
        for message in stored:
            self._by_topic[message.topic] = message
            self._bytes += message.size_bytes

    def put(self, message: messages.Message) -> bool:
        """Keeps, replaces or clears; False if there is no room. The caller waits for the journal if it must."""
        old = self._by_topic.pop(message.topic, None)
        if old is not None:
            self._bytes -= old.size_bytes
        if not message.payload:
            if old is not None:
                self._journal.remove_retained(message.topic)
            return True
        full = (
            len(self._by_topic) >= self._totals.retained_messages
            or self._bytes + message.size_bytes > self._totals.retained_bytes
        )
        if full:
            self._journal.remove_retained(message.topic)
            return False
        self._by_topic[message.topic] = message
        self._bytes += message.size_bytes
        self._journal.put_retained(message)
        return True

    def match(self, topic_filter: str) -> Iterator[messages.Message]:
        if "+" not in topic_filter and "#" not in topic_filter:
            message = self._by_topic.get(topic_filter)
            if message is not None:
                yield message
            return
        for topic, message in self._by_topic.items():
            if subscriptions.matches(topic_filter, topic):
                yield message

    def sweep(self, now_ms: int) -> None:
        """Drops what has expired."""
        gone = [each for each in self._by_topic.values() if each.expires_at_ms and each.expires_at_ms <= now_ms]
        for message in gone:
            del self._by_topic[message.topic]
            self._bytes -= message.size_bytes
            self._journal.remove_retained(message.topic)
