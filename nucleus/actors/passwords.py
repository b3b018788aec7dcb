"""Debug passwords: made for whoever the device's own commands ask, kept as hashes, for eight hours (spec/nucleus.md 8.1)."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable

from msgspec import Struct

USER = "debug"
VALID_S = 8 * 3600
KEPT = 16  # the oldest goes


class Made(Struct, frozen=True):
    """`expires_at` is epoch seconds."""

    password: str
    expires_at: float


class Passwords:
    """Those of one run of the nucleus; a restart forgets them."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._salt = os.urandom(16)
        self._known: dict[bytes, float] = {}

    def create(self) -> Made:
        """A new password for the user `debug`; earlier ones stay valid until their own time."""
        made = Made(secrets.token_urlsafe(24), self._clock() + VALID_S)
        self._known[self._hash(made.password)] = made.expires_at
        while len(self._known) > KEPT:
            del self._known[next(iter(self._known))]
        return made

    def accepts(self, user: str, password: str) -> bool:
        """Whether they are good now."""
        now, wanted = self._clock(), self._hash(password)
        found = [expires_at for known, expires_at in self._known.items() if hmac.compare_digest(known, wanted)]
        return hmac.compare_digest(user.encode(), USER.encode()) and any(now < expires_at for expires_at in found)

    def _hash(self, password: str) -> bytes:
        return hashlib.sha256(self._salt + password.encode()).digest()  # random and long: nothing to guess slowly
