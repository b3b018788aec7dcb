"""Provisions a device that has no identity yet while the nucleus runs offline, then asks for a start with the new one.

The work is done by a short-lived process (nucleus/uplink/provisioning.py). What may pass (no network) is tried again with
growing pauses; any other failure leaves the nucleus offline until its next start.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

from nucleus.host import logs
from nucleus.uplink import provisioning

ATTEMPT_S = 600.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 600.0


class Provisioning:
    """`done` is called once, with the identity, when there is one."""

    def __init__(
        self,
        order: Mapping[str, Any],
        done: Callable[[dict[str, Any]], None],
        log: logs.Log,
        *,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._order = json.dumps(order).encode()
        self._done = done
        self._log = log
        self._pause_s = first_pause_s

    async def run(self) -> None:
        while True:
            code, output, said = await self._attempt()
            if code == 0:
                found = provisioning.checked(json.loads(output))
                self._log.info("provisioning.done", thing=found["system"]["thingName"])
                self._done(found)
                return
            if code != provisioning.LATER:
                self._log.error("provisioning.failed", why=said, then="offline until the next start")
                return
            pause_s = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311  jitter
            self._log.warning("provisioning.delayed", why=said, again_in_s=round(pause_s))
            await asyncio.sleep(pause_s)
            self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    async def _attempt(self) -> tuple[int, bytes, str]:
        """Exit code, standard output and the last words of one process."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "nucleus.uplink.provisioning", stdin=pipe, stdout=pipe, stderr=pipe
        )
        try:
            async with asyncio.timeout(ATTEMPT_S):
                output, said = await process.communicate(self._order)
        except TimeoutError:
            return provisioning.LATER, b"", f"no result within {ATTEMPT_S:g} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        lines = said.decode(errors="replace").strip().splitlines()
        return process.returncode or 0, output, lines[-1] if lines else f"exit code {process.returncode}"
