"""One scenario on an in-process device: `python -m tools.crash.child ROOT SCENARIO [--kill-after N] [--log FILE]`.

Deployments have fixed ids, so running it again goes on where a kill ended it. Prints one JSON line at the end: how each
deployment ended, what is installed, and how many processes each component has.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import sys
from pathlib import Path
from typing import Any

from nucleus.core import configuration, desired, document
from nucleus.store import deployments
from tests.nucleus.actors import device as devices
from tools.crash import recorder, scenarios


async def carry_out(root: Path, steps: tuple[scenarios.Step, ...], first: int) -> dict[str, Any]:
    """Submits what is not known yet, waits for every end, tells the state while everything runs."""
    device = devices.Device(root)
    device.publish(*scenarios.recipes())
    async with device.running():
        for number, step in enumerate(steps, first):
            await _one(device, number, step)
        async with asyncio.timeout(30):
            while not all(one.settled for one in device.supervisor.health().values()):
                await device.supervisor.changed(device.supervisor.revision)
        return {
            "ends": {record.id: record.result.detailed for record in _records(device).values() if record.result},
            "installed": {n: one.version for n, one in desired.installed(device.configuration.tree).items()},
            "speed": configuration.get(device.configuration.tree, ("services", scenarios.A, "configuration", "speed")),
            "processes": _processes(root),
            "broken": [n for n, one in device.supervisor.health().items() if one.state.name == "BROKEN"],
        }


async def _one(device: devices.Device, number: int, step: scenarios.Step) -> None:
    name = f"d{number}"
    known = _records(device).get(name)
    if known is not None and known.result is not None:
        return
    if known is None:
        published = device.places.root / "published"
        device.store.take_local(published, None)
        device.deployer.submit(_record(name, number, step))
    await device.end_of(name)


def _record(name: str, number: int, step: scenarios.Step) -> deployments.Record:
    wishes = {
        component: document.Wish(version=version, merge=step.merge if component == scenarios.A and step.merge else None)
        for component, version in step.roots.items()
    }
    created_ms = 1_900_000_000_000 + number * 1000  # beyond any clock of today: order does not depend on it
    found = document.Document(
        deployment_id=name,
        configuration_arn=f"arn:aws:greengrass:us-east-1:123456789012:configuration:{devices.GROUP}:{number}",
        group=devices.GROUP,
        created_ms=created_ms,
        components=wishes,
        watch_s=0.0,
    )
    return deployments.Record(document=found, source=deployments.JOB, carrier=name, queued_ms=created_ms)


def _records(device: devices.Device) -> dict[str, deployments.Record]:
    return {one.id: one for one in deployments.DeploymentStore(device.places).load()[0]}


def _processes(root: Path) -> dict[str, int]:
    """Processes of each component by their working directory, whoever started them."""
    found: collections.Counter[str] = collections.Counter()
    for entry in Path("/proc").iterdir():
        try:
            place = (entry / "cwd").readlink() if entry.name.isdigit() else entry
        except OSError:
            continue
        if place.parent == root / "work":
            found[place.name] += 1
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("scenario", choices=sorted(scenarios.SCENARIOS))
    parser.add_argument("--before", action="store_true", help="carry out only what comes before")
    parser.add_argument("--kill-after", type=int, default=0)
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    scenario = scenarios.SCENARIOS[arguments.scenario]
    seen = recorder.Recorder(arguments.root, kill_after=arguments.kill_after, log=arguments.log)
    seen.install()
    steps, first = (scenario.before, 1) if arguments.before else (scenario.steps, 1 + len(scenario.before))
    told = asyncio.run(carry_out(arguments.root, steps, first))
    print(json.dumps(told | {"synced": seen.synced}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
