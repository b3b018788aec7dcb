"""Renews the device's certificate before it expires: a new key, a request over mutual TLS, proof, and only then the switch.

The new certificate is used from the next start of the nucleus on; if none comes by a day before the old one's end, the
nucleus begins anew by itself. The cloud turns the old one off when the device has connected with the new one and says so;
the old files stay.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from nucleus.core import certificate, errors
from nucleus.host import files, logs, vault

RENEW = "/marram/v1/certificates/renew"
CONFIRM = "/marram/v1/certificates/confirm"
DAY_S, HOUR_S = 86_400.0, 3_600.0
BEFORE_DAYS = 30
_PROOFS, _PROOF_PAUSE_S = 3, 2.0

Call = Callable[[str, str, bytes, "Pair | None"], Awaitable[tuple[int, bytes]]]


class Pair(Struct, frozen=True):
    """A certificate and its key, PEM files."""

    certificate: Path
    private_key: Path


class Renewal:
    """`call(method, path, body, pair)` asks the cloud, with the certificate in use if `pair` is None.

    `proof` is a path that every good certificate of this device may GET. `save` makes a pair the one of the next start,
    `begin_again` makes the nucleus start; `unconfirmed` says that this is the first run with a new certificate.
    """

    def __init__(
        self,
        current: Path,
        folder: Path,
        call: Call,
        save: Callable[[Pair], None],
        log: logs.Log,
        *,
        proof: str,
        before_days: float,
        begin_again: Callable[[], None],
        unconfirmed: bool,
        confirmed: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._current = current
        self._folder = folder
        self._call = call
        self._save = save
        self._log = log
        self._proof = proof
        self._before_s = before_days * DAY_S
        self._begin_again = begin_again
        self._unconfirmed = unconfirmed
        self._confirmed = confirmed
        self._clock = clock
        self._connected = asyncio.Event()
        self._ready = False  # a new certificate waits for the next start
        self._helps = True  # by this device's clock, which may be wrong, it is good for longer than a day

    def connected(self) -> None:
        """The uplink is there, with the certificate in use."""
        self._connected.set()

    async def run(self) -> None:
        """Looks at least once a day, until cancelled."""
        while True:
            pause_s = HOUR_S
            try:
                if self._unconfirmed:
                    await self._connected.wait()  # no deadline: without a connection there is nothing to do
                    await self._confirm()
                pause_s = await self.look()
            except (errors.NucleusError, OSError, ValueError) as error:
                self._log.warning("certificate.not_renewed", why=str(error), again_in_s=pause_s)
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.0))  # noqa: S311  jitter

    async def look(self) -> float:
        """Renews if it is time; returns seconds until the next look."""
        left_s = certificate.validity(self._current.read_text()).not_after - self._clock()
        if self._ready:
            if left_s < DAY_S and self._helps:
                self._log.warning("certificate.begin_again", left_s=round(left_s))
                self._begin_again()
            return HOUR_S
        if left_s > self._before_s:
            return min(max(left_s - self._before_s, HOUR_S), DAY_S)
        self._log.info("certificate.renewing", left_days=round(left_s / DAY_S))
        pair = await self._renew()
        self._save(pair)
        self._ready = True
        new_left_s = certificate.validity(pair.certificate.read_text()).not_after - self._clock()
        self._helps = new_left_s > DAY_S
        if not self._helps:
            hint = "set the clock (marram doctor shows it); the nucleus does not begin anew for this certificate"
            self._log.warning("certificate.clock_is_wrong", new_left_days=round(new_left_s / DAY_S), then=hint)
        self._log.info("certificate.renewed", file=str(pair.certificate), then="used from the next start on")
        return HOUR_S

    async def _renew(self) -> Pair:
        made = await self._key()
        request = json.dumps({"certificateSigningRequest": made["request"]}).encode()
        status, body = await self._call("POST", RENEW, request, None)
        if status != 200:
            raise _refused("renew the certificate", status, body)
        answer = json.loads(body)
        name = f"device-{str(answer['certificateId'])[:12]}"
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        files.write_durably(pair.private_key, made["privateKey"].encode(), 0o600)
        files.write_durably(pair.certificate, str(answer["certificatePem"]).encode(), 0o644)
        try:
            await self._prove(pair)
        except errors.NucleusError:
            pair.certificate.unlink(missing_ok=True)
            pair.private_key.unlink(missing_ok=True)
            raise
        return pair

    async def _prove(self, pair: Pair) -> None:
        """Connects with the new certificate: only what was seen to work replaces what works."""
        status, body = 0, b""
        for number in range(_PROOFS):
            status, body = await self._call("GET", self._proof, b"", pair)
            if status == 200:
                return
            await asyncio.sleep(_PROOF_PAUSE_S * (number + 1))
        raise _refused("use the new certificate", status, body)

    async def _confirm(self) -> None:
        status, body = await self._call("POST", CONFIRM, b"{}", None)
        if status != 200:
            raise _refused("confirm the new certificate", status, body)
        self._confirmed()
        self._unconfirmed = False
        self._log.info("certificate.confirmed", old="turned off in the cloud")

    async def _key(self) -> dict[str, Any]:
        """A new key and its request, from the vault's process; the key comes through a pipe."""
        try:
            return await vault.call("csr")
        except errors.NucleusError as error:
            raise errors.NucleusError(error.code, f"{error.detail}; the present certificate stays in use") from error


def _refused(what: str, status: int, body: bytes) -> errors.NucleusError:
    text = body.decode(errors="replace")[:300]
    return errors.NucleusError("BAD_REQUEST", f"cannot {what}: the cloud answered {status}: {text}")
