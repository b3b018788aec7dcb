"""`aws.greengrass.clientdevices.Auth`: who a client device is, its tokens, and what it may do.

In: questions of the IPC, the configuration. Out: answers. The cloud is asked by a route of our own service; what it said
counts without asking again for `trust_s`, and for `offline_s` while it cannot be asked, through restarts. Invariants: what
the cloud denies is forgotten at once, with the device's tokens; tokens are bounded and end with the process.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable

from msgspec import Struct

from nucleus.core import certificate, client_devices, errors
from nucleus.host import logs
from nucleus.store import client_devices as store
from nucleus.uplink import dataplane

TOKEN_LIFE_S = 86_400.0
REMEMBERED = 2_500  # verified devices
ASKED_AT_ONCE = 8
QUESTION_S = 10.0
DOWN_S = 10.0  # a cloud that gave no answer is not asked again about devices it has verified before
LATE_S = 3_600.0  # what is on disk may be this much older than what is known
CLOCK_BACK_S = 300.0  # a clock set back by more makes what was verified worthless

Ask = Callable[[str, str], Awaitable[tuple[bool, float]]]  # certificate and thing -> is it good, valid until


class Session(Struct):
    """What a token stands for; `until_s` is of the steady clock."""

    client_id: str
    certificate_id: str
    until_s: float


class ClientDevices:
    """`ask` is the cloud's question (uplink.dataplane), `read` the present configuration."""

    def __init__(
        self,
        kept: store.ClientDeviceStore,
        ask: Ask,
        read: Callable[[], client_devices.Settings],
        log: logs.Log,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = kept
        self._ask = ask
        self._read = read
        self._log = log
        self._wall = wall
        self._steady = steady
        self._settings = read()
        self._verified = {(one.certificate_id, one.thing): one for one in kept.verified()}
        self._on_disk = dict(self._verified)
        self._sessions: dict[str, Session] = {}  # by token, the oldest first
        self._tokens: dict[tuple[str, str], str] = {}  # by client id and certificate
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE)
        self._saving = asyncio.Lock()
        self._down_until_s = 0.0  # of the steady clock

    def changed(self) -> None:
        """The configuration changed: it counts for devices with a token, too."""
        self._settings = self._read()
        for problem in self._settings.problems:
            self._log.warning("client_devices.configuration", what=problem)
        self._trim()

    # ---- who is it -----------------------------------------------------------------------------------------------

    async def verify(self, pem: str, thing: str = "") -> bool:
        """Whether a certificate is ACTIVE in the account, and attached to the thing if one is given.

        Raises NucleusError if that cannot be found out.
        """
        try:
            id_ = certificate.fingerprint(pem)
        except ValueError:
            return False
        known = self._verified.get((id_, thing))
        if known is not None and self._counts(known, self._settings.trust_s):
            return True
        is_trusted = known is not None and self._counts(known, self._settings.offline_s)
        try:
            is_good, until_s = await self._question(pem, thing, is_urgent=not is_trusted)
        except dataplane.Unavailable as error:
            if not is_trusted:
                raise
            self._log.info("client_devices.offline", certificate=id_, thing=thing, why=error.detail)
            return True
        self._learn(store.Verified(id_, thing, self._wall(), until_s), is_good)
        await self._save()
        return is_good

    async def _question(self, pem: str, thing: str, *, is_urgent: bool) -> tuple[bool, float]:
        why = f"cannot verify client device {thing}".rstrip() + ": the cloud does not answer in time"
        async with self._asking:
            if not is_urgent and self._steady() < self._down_until_s:
                raise dataplane.Unavailable("NETWORK_ERROR", why)
            try:
                async with asyncio.timeout(QUESTION_S):
                    return await self._ask(pem, thing)
            except (TimeoutError, dataplane.Unavailable) as error:
                self._down_until_s = self._steady() + DOWN_S
                if isinstance(error, TimeoutError):
                    raise dataplane.Unavailable("NETWORK_ERROR", why) from None
                raise

    def _counts(self, known: store.Verified, for_s: float) -> bool:
        now_s = self._wall()
        return -CLOCK_BACK_S <= now_s - known.at_s <= for_s and now_s < known.until_s

    def _learn(self, found: store.Verified, is_good: bool) -> None:
        key = (found.certificate_id, found.thing)
        self._verified.pop(key, None)
        if is_good:
            self._verified[key] = found
            while len(self._verified) > REMEMBERED:
                self._verified.pop(next(iter(self._verified)))
            return
        gone = [one for one in self._verified if one[0] == found.certificate_id and found.thing in ("", one[1])]
        for one in gone:
            del self._verified[one]
        for token, session in list(self._sessions.items()):
            if session.certificate_id == found.certificate_id and found.thing in ("", session.client_id):
                self._forget(token)

    async def _save(self) -> None:
        """Writes what is new, gone, or known for much later than the disk says."""
        async with self._saving:
            now = dict(self._verified)
            same = now.keys() == self._on_disk.keys()
            if same and all(one.at_s - self._on_disk[key].at_s < LATE_S for key, one in now.items()):
                return
            try:
                await asyncio.to_thread(self._store.save_verified, tuple(now.values()))
            except errors.NucleusError as error:  # a full disk: the device is verified all the same
                self._log.warning("client_devices.not_saved", why=error.detail)
                return
            self._on_disk = now

    # ---- tokens and what they may ---------------------------------------------------------------------------------

    async def token(self, client_id: str, pem: str) -> str:
        """The token of a device whose thing has this certificate; asking again gives the same while it lives.

        Raises InvalidCredentialError.
        """
        try:
            is_good = await self.verify(pem, client_id)
        except errors.NucleusError as error:
            raise client_devices.InvalidCredentialError(error.detail) from error
        if not is_good:
            why = f"no thing {client_id} of this account has this certificate, or it is not ACTIVE"
            raise client_devices.InvalidCredentialError(f"cannot give a token to client device {client_id}: {why}")
        key = (client_id, certificate.fingerprint(pem))
        token = self._tokens.get(key) or secrets.token_urlsafe(32)
        self._sessions.pop(token, None)
        self._sessions[token] = Session(*key, self._steady() + TOKEN_LIFE_S)
        self._tokens[key] = token
        self._trim()
        return token

    def authorize(self, token: str, operation: str, resource: str) -> bool:
        """Whether the token's device may do that, by the present configuration. Raises InvalidTokenError."""
        session = self._sessions.get(token)
        if session is not None and session.until_s < self._steady():
            self._forget(token)
            session = None
        if session is None:
            what = "cannot authorize: the client device's token is unknown or too old; get another one"
            raise client_devices.InvalidTokenError(what)
        return client_devices.allows(self._settings, session.client_id, operation, resource)

    def _trim(self) -> None:
        while len(self._sessions) > self._settings.tokens:
            self._forget(next(iter(self._sessions)))

    def _forget(self, token: str) -> None:
        session = self._sessions.pop(token)
        self._tokens.pop((session.client_id, session.certificate_id), None)
