"""Measures and prints the tables: `python -m tools.continuity_models [--broker-seconds 300] [--only ours|sample|boot]`."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from tools import system as systems
from tools.continuity_models import boot, events, models, report, table, world

CNN_RATE, PART = 200.0, 0.7
THREADS = {models.DETECTOR: 8, models.CNN: 16}
LATE_S = 30.0
SATURATION_PARTS = 5
SATURATION_S, SETTLE_S, QUIET_S, AFTER_S = 3.0, 3.0, 5.0, 3.0
SWAPS, SWAPS_S = 20, 60.0
_pause = threading.Event()


def saturation(one: world.World) -> float:
    """Answers of the INT8 detector a second when asked as quickly as it answers, while the CNN is asked at its rate.

    The least of SATURATION_PARTS: what is asked later must not be above what the machine gives in its loud moments.
    """
    cnn = {"rate": CNN_RATE, "threads": THREADS[models.CNN]}
    one.start_client({models.DETECTOR: {"rate": 0, "threads": 2}, models.CNN: cnn})
    path = one.log / f"{models.DETECTOR}.csv"
    systems.wait_for(lambda: len(report.read(path)) > 10, "the detector's first answers", 60)
    moments = [time.monotonic()]
    for _ in range(SATURATION_PARTS):
        _pause.wait(SATURATION_S)
        moments.append(time.monotonic())
    one.stop_client()
    done = [each.done for each in report.read(path)]
    parts = [sum(begin < each <= end for each in done) / (end - begin) for begin, end in itertools.pairwise(moments)]
    for alias in THREADS:
        (one.log / f"{alias}.csv").unlink()
    return min(parts)


def measure_ours(folder: Path, built: Path, chosen: list[events.Event], swaps: bool) -> table.Column:
    """Our column; its rates are those that the sample gets, too."""
    one = world.World(folder, built)
    try:
        one.publish_ours()
        first = {world.AGENT: "1.0.0", world.CAMERA: "1.0.0", world.APPLICATION: "1.0.0"}
        one.deploy(first | {world.DETECTOR: "2.0.0", world.CNN: "1.0.0"})
        full = saturation(one)
        rates = {models.DETECTOR: full * PART, models.CNN: CNN_RATE}
        print(
            f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores (what others do on this machine is in all figures)"
        )
        asked = f"asked: detector {rates[models.DETECTOR]:.0f}/s, cnn {CNN_RATE:.0f}/s"
        print(f"the detector's saturation {full:.0f}/s; {asked}", flush=True)
        one.start_client({alias: {"rate": rate, "threads": THREADS[alias]} for alias, rate in rates.items()})
        windows = _play(one, [(event.name, event.ours) for event in chosen])
        if swaps:
            windows.append(_swap(one))
        one.stop_client()
        return _column("marram", one, rates, windows)
    finally:
        one.close()


def measure_sample(
    folder: Path, built: Path, rates: dict[str, float], chosen: list[events.Event], swaps: bool
) -> table.Column:
    """The second column."""
    one = world.World(folder, built)
    try:
        configuration = folder / "sample.json"
        begin = time.monotonic()
        given = {"known": str(built / "known.npz"), "log": str(one.log), "begin": begin, "rates": rates}
        configuration.write_text(json.dumps(given))
        one.publish_sample(configuration)
        one.deploy({world.APPLICATION: "1.0.0", world.DETECTOR: "2.0.0", world.CNN: "1.0.0"})
        path = one.log / f"{models.DETECTOR}.csv"
        systems.wait_for(lambda: len(report.read(path)) > 10, "the sample's first answers", 60)
        windows = _play(one, [(event.name, event.sample) for event in chosen])
        if swaps:
            windows.append(_swap(one))
        _drain(one, windows)
        return _column("Greengrass's sample", one, rates, windows)
    finally:
        one.close()


def _play(one: world.World, acts: list[tuple[str, events.Act | None]]) -> list[table.Window]:
    """Every event with a quiet time before it; an event that fails is told and ends nothing."""
    _pause.wait(SETTLE_S)
    windows = []
    for name, act in acts:
        if act is None:
            continue
        quiet = time.monotonic()
        _pause.wait(QUIET_S)
        begin = time.monotonic()
        problem = ""
        try:
            act(one)
        except (RuntimeError, TimeoutError) as error:
            problem = " ".join(str(error).split())[:200]
        took_s = time.monotonic() - begin
        _pause.wait(AFTER_S)
        windows.append(table.Window(name, quiet, begin, time.monotonic(), problem))
        print(f"  {name}: {took_s:.1f} s, load {os.getloadavg()[0]:.1f} {problem}", file=sys.stderr, flush=True)
    return windows


def _swap(one: world.World) -> table.Window:
    """Twenty updates of the CNN's model in a minute, each a deployment; as many as there is time for."""
    component = world.OTHER_CNN
    quiet = time.monotonic()
    _pause.wait(QUIET_S)
    begin, done, problem = time.monotonic(), 0, ""
    while done < SWAPS and time.monotonic() - begin < SWAPS_S:
        try:
            one.deploy({component: models.CNN_VERSIONS[1 + done % 2 * 2]})
        except (RuntimeError, TimeoutError) as error:
            problem = " ".join(str(error).split())[:200]
            break
        done += 1
        _pause.wait(max(0.0, begin + done * SWAPS_S / SWAPS - time.monotonic()))
    name = f"{done} swaps of the cnn in {time.monotonic() - begin:.0f} s"
    print(f"  {name} {problem}", file=sys.stderr, flush=True)
    _pause.wait(1.0)
    return table.Window(name, quiet, begin, time.monotonic(), problem)


def _drain(one: world.World, windows: list[table.Window]) -> None:
    """Waits for answers that are late: they are no failures."""
    end = windows[-1].end

    def answered() -> bool:
        return all(report.read(one.log / f"{alias}.csv")[-1].due >= end for alias in THREADS)

    with contextlib.suppress(TimeoutError):
        systems.wait_for(answered, "the last answers", LATE_S, 0.5)


def _column(name: str, one: world.World, rates: dict[str, float], windows: list[table.Window]) -> table.Column:
    requests = {alias: report.read(one.log / f"{alias}.csv") for alias in rates}
    return table.Column(name, rates, requests, windows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--broker-seconds", type=float, default=20.0, help="how long the broker is down (the issue: 300)"
    )
    parser.add_argument(
        "--only", choices=("ours", "sample", "boot"), help="sample and boot alone: the detector at 10/s"
    )
    parser.add_argument("--event", default="", help="only events whose name has this text, and no swaps")
    given = parser.parse_args()
    chosen = [one for one in events.events(given.broker_seconds) if given.event in one.name]
    with tempfile.TemporaryDirectory(prefix="cm") as name:  # short: socket paths end at 107 bytes
        folder = Path(name)
        models.build(folder / "built")
        rates = {models.DETECTOR: 10.0, models.CNN: CNN_RATE}
        good = True
        if given.only in (None, "ours"):
            ours = measure_ours(folder / "o", folder / "built", chosen, not given.event)
            rates = ours.rates
            good = table.show(ours)
        if given.only in (None, "boot"):
            streams = {alias: {"rate": rate, "threads": THREADS[alias]} for alias, rate in rates.items()}
            good = table.show_boots(boot.boots(folder / "b", folder / "built", streams)) and good
        if given.only in (None, "sample"):
            table.show(measure_sample(folder / "s", folder / "built", rates, chosen, not given.event))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
