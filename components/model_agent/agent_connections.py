"""Which connections of the native door stay: a bounded number, and always room for who has come to change or ask something.

Clients keep their connections, and connect again by themselves when one has ended. So when LIMIT are open and another comes,
the one that was silent for longest ends, between two of its frames. Only where all have a request under way, what comes is
taken into a reserve instead: it may do anything but ask for predictions, and not be silent for long. Beyond that it is refused.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

LIMIT = 64
RESERVE = 16
PREDICTIONS = frozenset({"predict", "share"})


class Place:
    """One connection that is open; its attributes are for the thread that serves it."""

    __slots__ = ("answering", "connection", "ending", "lent", "reserved", "since")

    def __init__(self, connection: socket.socket, *, reserved: bool) -> None:
        self.connection = connection
        self.reserved = reserved  # of the reserve: no predictions
        self.since = time.monotonic()  # when it came, or the end of its last reply
        self.answering = False  # between a request and the end of its reply
        self.lent = self.ending = False


class Connections:
    """The places of one door; for many threads."""

    def __init__(self, limit: int = LIMIT, reserve: int = RESERVE) -> None:
        self._limit = limit
        self._reserve = reserve
        self._open: set[Place] = set()
        self._lock = threading.Lock()

    def enter(self, connection: socket.socket) -> Place | None:
        """A place for it, of the reserve if it must be; None when there is none."""
        with self._lock:
            if len(self._open) >= self._limit + self._reserve:
                return None
            staying = sum(not (each.reserved or each.ending) for each in self._open)
            place = Place(connection, reserved=staying >= self._limit and not self._end_one())
            self._open.add(place)
            return place

    def leave(self, place: Place) -> None:
        """Its connection is closed."""
        with self._lock:
            self._open.discard(place)

    def lend(self, place: Place) -> None:
        """Its connection is another's business from now on, which ends it."""
        place.lent = True

    def answering(self) -> bool:
        """Whether a reply is under way."""
        with self._lock:
            return any(each.answering for each in self._open)

    def drain(self) -> None:
        """Each connection ends when what has come is answered: its client connects again, to who accepts now."""
        with self._lock:
            for each in self._open:
                if not each.lent:
                    _end(each)

    def _end_one(self) -> bool:
        idle = [each for each in self._open if not (each.answering or each.reserved or each.lent or each.ending)]
        if not idle:
            return False
        _end(min(idle, key=lambda each: each.since))
        return True


def _end(place: Place) -> None:
    """What its client has sent is read and answered, what it sends from now on it knows to be lost."""
    place.ending = True
    with contextlib.suppress(OSError):
        place.connection.shutdown(socket.SHUT_RD)
