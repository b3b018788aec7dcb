"""Sessions and subscriptions of the whole broker: who gets a message, who takes over a session, when a session ends."""

from __future__ import annotations

from cloud.core import subscriptions
from cloud.mqtt import port
from cloud.mqtt.broker import journal, limits, link, messages, presence, retained
from cloud.mqtt.broker import session as sessions
from nucleus.wire import mqtt_packets

_Leaf = subscriptions.Leaf[sessions.Session, sessions.Subscription]
_Targets = dict[sessions.Session, tuple[int, bool, tuple[int, ...]]]  # qos, retain flag, subscription identifiers


class Router:
    """Owned by the loop: no method awaits, and none closes a connection while it delivers."""

    def __init__(self, around: sessions.Surroundings, kept: retained.Retained) -> None:
        self.around = around
        self.retained = kept
        self.sessions: dict[str, sessions.Session] = {}
        self.links: dict[str, link.Link] = {}  # of those that are connected
        self._table: subscriptions.Subscriptions[sessions.Session, sessions.Subscription] = (
            subscriptions.Subscriptions()
        )

    def restore(self, stored: list[journal.StoredSession]) -> None:
        """Takes over what was on disk; sessions whose client was connected begin to age now."""
        for each in stored:
            service = each.client_id.startswith("$")
            bounds = limits.SERVICE if service else limits.DEVICE
            session = sessions.Session(each.client_id, self.around, bounds, service=service)
            session.expiry_s = each.expiry_s
            session.ends_at_ms = each.ends_at_ms or self.around.now_ms + each.expiry_s * 1000
            session.restore(each.queue)
            self.sessions[each.client_id] = session
            for request, identifier in each.subscriptions:
                self._add(session, request, identifier)

    def is_full(self, client_id: str) -> bool:
        """Whether there is no room for one more session."""
        return client_id not in self.sessions and len(self.sessions) >= self.around.totals.sessions

    def publish(self, message: messages.Message, receipt: link.Receipt | None = None) -> None:
        """Keeps and delivers a message; the receipt, if any, waits for what must become durable."""
        around = self.around
        around.counters.received += 1
        if message.retain:
            self.retained.put(message)
            if receipt is not None:
                receipt.pending += 1
                around.journal.after_commit(receipt.release)
        for session, (qos, retain, identifiers) in self._targets(message).items():
            if qos:
                session.deliver(message, retain=retain, identifiers=identifiers, receipt=receipt)
            else:
                session.offer(message, retain=retain, identifiers=identifiers)
        if receipt is not None:
            receipt.release()

    def subscribe(
        self, session: sessions.Session, request: mqtt_packets.Request, identifier: int, *, version: int
    ) -> None:
        """Adds or replaces a subscription and sends the retained messages it asks for."""
        is_new = self._add(session, request, identifier)
        if session.expiry_s:
            self.around.journal.put_subscription(session.client_id, request.filter, request, identifier)
        subscription = session.subscriptions[request.filter]
        if subscription.group or request.retain_handling == 2 or (request.retain_handling == 1 and not is_new):
            return
        identifiers = (identifier,) if identifier and version == mqtt_packets.V5 else ()
        for message in self.retained.match(subscription.filter):
            if message.qos and request.qos:
                session.deliver(message, retain=True, identifiers=identifiers, receipt=None)
            else:
                session.offer(message, retain=True, identifiers=identifiers)

    def unsubscribe(self, session: sessions.Session, key: str) -> bool:
        subscription = session.subscriptions.pop(key, None)
        if subscription is None:
            return False
        self._table.remove(subscription.filter, subscription.group, session)
        if session.expiry_s:
            self.around.journal.remove_subscription(session.client_id, key)
        return True

    def attach(self, to: link.Link, *, clean_start: bool, expiry_s: int) -> bool:
        """Gives the link its session, after its predecessor was detached; True if there was one to continue."""
        session = self.sessions.get(to.client_id)
        if session is not None and clean_start:
            self.end(session)
            session = None
        present = session is not None
        if session is None:
            session = sessions.Session(to.client_id, self.around, to.bounds, service=to.service)
            self.sessions[to.client_id] = session
        if session.expiry_s and not expiry_s:
            self.around.journal.forget_session(session.client_id, session.undelivered())
        session.expiry_s = expiry_s
        session.ends_at_ms = 0
        session.pending_will = None
        to.session = session
        self.links[to.client_id] = to
        if expiry_s:
            self.around.journal.put_session(session.client_id, expiry_s, 0)
        return present

    def resume(self, to: link.Link) -> None:
        """After CONNACK: sends what waits, and tells the world that the client is here."""
        if to.session is not None:
            to.session.resume(to)
        self._announce(presence.connected(to, self.around.now_ms))

    def detach(self, of: link.Link, reason: str) -> None:
        """The connection is gone, or about to be: sends the will or keeps it for later, and lets the session age."""
        session, of.session = of.session, None
        if session is None:
            return
        session.link = None
        del self.links[of.client_id]
        session.release_slowed()
        will, of.will = of.will, None
        self._announce(presence.disconnected(of, reason, self.around.now_ms))
        if will is not None:
            message, delay_s = will
            delay_s = min(delay_s, session.expiry_s)
            session.pending_will = (message, self.around.now_ms + delay_s * 1000)
            if not delay_s:
                self._send_will(session)
        if not session.expiry_s:
            self.end(session)
            return
        session.ends_at_ms = self.around.now_ms + session.expiry_s * 1000
        self.around.journal.put_session(session.client_id, session.expiry_s, session.ends_at_ms)

    def disconnect(self, of: link.Link, reason: int, word: str) -> None:
        """Ends a connection from our side; `word` is the presence event's reason."""
        self.detach(of, word)
        of.close(reason)

    def end(self, session: sessions.Session) -> None:
        """Forgets a session, sending a will that was still waiting."""
        for subscription in session.subscriptions.values():
            self._table.remove(subscription.filter, subscription.group, session)
        session.subscriptions = {}
        session.clear()
        self.sessions.pop(session.client_id, None)
        self._send_will(session)

    def sweep(self) -> None:
        """Once a second: ends old sessions, sends delayed wills, frees publishers that wait for the idle."""
        now_ms, clock = self.around.now_ms, self.around.clock
        for session in list(self.sessions.values()):
            if session.slowed and clock - session.progress_at > session.bounds.progress_s:
                session.release_slowed()
            if session.link is not None:
                continue
            if session.pending_will is not None and session.pending_will[1] <= now_ms:
                self._send_will(session)
            if session.ends_at_ms <= now_ms:
                self.end(session)

    def _announce(self, message: messages.Message | None) -> None:
        if message is not None:
            self.publish(message)

    def _send_will(self, session: sessions.Session) -> None:
        if session.pending_will is None:
            return
        message, _ = session.pending_will
        session.pending_will = None
        lasting_s = message.properties.message_expiry_s
        if lasting_s is not None:
            message.expires_at_ms = self.around.now_ms + lasting_s * 1000
        self.publish(message)

    def _add(self, session: sessions.Session, request: mqtt_packets.Request, identifier: int) -> bool:
        group, _, topic_filter = (
            request.filter[7:].partition("/") if request.filter.startswith("$share/") else ("", "", "")
        )
        topic_filter = topic_filter or request.filter
        subscription = sessions.Subscription(request.filter, topic_filter, group, request, identifier)
        session.subscriptions[request.filter] = subscription
        return self._table.add(topic_filter, group, session, subscription)

    def _targets(self, message: messages.Message) -> _Targets:
        """One entry per session, however many of its filters match: the highest QoS, all identifiers."""
        targets: _Targets = {}
        only = _only(message)
        for leaf in self._table.match(message.topic):
            for session, subscription in leaf.single.items():
                _aim(targets, message, session, subscription)
            for group in (leaf.groups or {}).values():
                member = _choose(group)
                _aim(targets, message, *member)
        return {session: how for session, how in targets.items() if session.client_id == only} if only else targets


def _only(message: messages.Message) -> str:
    """The one client that may get a message, "" for all: requests to provisioning hold tokens, its answers keys."""
    if message.client_id == port.SERVICE_CLIENT_ID:
        return dict(message.properties.user).get(port.ONLY_PROPERTY, "")
    return port.SERVICE_CLIENT_ID if message.topic.startswith(port.CONFIDENTIAL) else ""


def _aim(
    targets: _Targets, message: messages.Message, session: sessions.Session, subscription: sessions.Subscription
) -> None:
    request = subscription.request
    if request.no_local and message.client_id == session.client_id:
        return
    qos = min(message.qos, request.qos)
    retain = message.retain and request.retain_as_published
    identifiers: tuple[int, ...] = (subscription.identifier,) if subscription.identifier else ()
    known = targets.get(session)
    if known is not None:
        qos, retain, identifiers = max(qos, known[0]), retain or known[1], known[2] + identifiers
    targets[session] = (qos, retain, identifiers)


def _choose(
    group: subscriptions.Group[sessions.Session, sessions.Subscription],
) -> tuple[sessions.Session, sessions.Subscription]:
    """The next member that is connected and has room for more; the next in turn if none is."""
    members = list(subscriptions.pick(group))
    for session, subscription in members:
        if session.link is not None and session.link.writable and len(session.in_flight) < session.link.in_flight:
            return session, subscription
    return members[0]
