"""Runs the script of a health check or of readiness like one of the component's own (core/care.py, `exec`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import structs

from nucleus.actors import running, starter
from nucleus.core import component, scripts
from nucleus.core.lifecycle import Phase
from nucleus.host import process

Start = Callable[[Phase, scripts.Script, dict[str, str]], Awaitable[process.Process]]  # raises starter.Failure


async def run(
    start: Start, processes: process.Processes, record: component.Component, text: str, timeout_s: float
) -> str:
    """Why it failed, "" if it ended well; after `timeout_s` it is ended."""
    step = {"setenv": record.lifecycle.get("setenv"), "probe": text}
    script = scripts.read_step(structs.replace(record, lifecycle=step), "probe", timeout_s)
    last: dict[str, str] = {}
    if script is None:
        return ""
    try:
        child = await start(Phase.RUN, script, last)
    except starter.Failure as failure:
        return failure.reason
    try:
        async with asyncio.timeout(timeout_s):
            code = await child.wait()
    except TimeoutError:
        await processes.end_one(child)
        return f"it did not end within {timeout_s:g} s{running.told(last)}"
    finally:
        processes.forget(child)
    return f"it {running.ended(code)}{running.told(last)}" if code else ""
