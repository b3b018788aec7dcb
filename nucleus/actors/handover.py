"""The supervisor's side of an orderly restart: components and their scripts go on under the next process image.

Everything is described in one turn of the loop, when no event waits. A script that is under way is waited for by the new
image with the deadline it had; a phase whose script was not started yet, and the end of processes, begin anew there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from nucleus.actors import runner, running
from nucleus.core import handover
from nucleus.core.lifecycle import Phase
from nucleus.host import process


def collect(runners: Collection[runner.Runner], processes: process.Processes, generation: int) -> handover.Components:
    return handover.Components(
        generation=generation,
        number=processes.number,
        runners=tuple(_collect(one, processes) for one in runners),
    )


def _collect(one: runner.Runner, processes: process.Processes) -> handover.Runner:
    under_way = one.under_way()
    waited_for = {script.child for script in under_way.values() if script is not None}
    return handover.Runner(
        record=one.record,
        used=one.used,
        token=one.token,
        process_name=one.process_name,
        life=one.life,
        since_at=one.since_at,
        removing=one.removing,
        spawned=one.spawned,
        paused=one.is_paused(),
        scripts=tuple(
            script.carry() if script is not None else handover.Script(phase=phase.value)
            for phase, script in under_way.items()
        ),
        others=tuple(child.carry() for child in processes.of(one.process_name) if child not in waited_for),
    )


def restore(carried: handover.Runner) -> runner.Runner:
    """The runner as it was; it does nothing until it is opened and resumed."""
    one = runner.Runner(carried.record, carried.token, carried.process_name)
    one.used = carried.used
    one.life = carried.life
    one.since_at = carried.since_at
    one.removing = carried.removing
    one.spawned = carried.spawned
    return one


def resume(
    runners: Mapping[str, runner.Runner],
    carried: handover.Components,
    processes: process.Processes,
    group: asyncio.TaskGroup,
) -> None:
    """Everything goes on; call it when the runners are open."""
    for each in carried.runners:
        one = runners.get(each.record.name)
        if one is None:
            continue
        for script in each.scripts:
            one.carry_on(Phase(script.phase), _running(one, script, processes))
        for child in each.others:
            adopted = processes.adopt(one.process_name, child, one.sink(Phase.RUN, {}))
            group.create_task(_end(adopted, processes), name=f"{each.record.name} left over")
        one.settle(paused=each.paused)


async def _end(child: process.Process, processes: process.Processes) -> None:
    """A probe that was under way: who asked is no more, and asks again. What has ended may still have descendants."""
    if not child.running():
        return
    await processes.end_one(child)
    await child.wait()
    if child in processes.of(child.component):
        processes.forget(child)


def _running(one: runner.Runner, script: handover.Script, processes: process.Processes) -> running.Script | None:
    if script.child is None:
        return None
    phase = Phase(script.phase)
    child = processes.adopt(one.process_name, script.child, one.sink(phase, script.last))
    return running.Script(phase, child, script.last, script.timeout_s, script.began_at)
