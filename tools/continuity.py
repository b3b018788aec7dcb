"""Orderly restarts of the daemon under load: what two unmodified official clients, running as components, notice of it.

`python -m tools.continuity [--restarts N] [--rate M]` starts a real daemon without a cloud, deploys a publisher and a subscriber
that use awsiotsdk, and restarts the daemon N times with `marram nucleus restart`. It fails when a message is lost or comes
twice, when a call of the publisher fails, or when a process of a component is another one afterwards.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from msgspec import Struct

from tools import local_nucleus
from tools import system as systems

PUBLISHER, SUBSCRIBER = "com.example.Publisher", "com.example.Subscriber"
TOPIC = "continuity/messages"
WITHIN_S = 60
PERIOD_S = 1.0  # from one restart to the next
_ROOT = Path(__file__).resolve().parent.parent
_pause = threading.Event()


class Outcome(Struct, frozen=True):
    """`gaps_ms`: for each restart the longest time without a message at the subscriber; `usual_ms` without restarts."""

    sent: int
    failed: int
    lost: int
    doubled: int
    gaps_ms: tuple[float, ...]
    usual_ms: float
    pids_before: dict[str, tuple[int, ...]]
    pids_after: dict[str, tuple[int, ...]]
    cloud: bool
    log: str

    def is_good(self) -> bool:
        doubled = 0 if self.cloud else self.doubled  # QoS 1 of MQTT means at least once
        return not (self.failed or self.lost or doubled) and self.pids_before == self.pids_after


def program(role: str, *arguments: Any) -> str:
    """The Run script of one of the two programs below."""
    words = " ".join(str(one) for one in arguments)
    return f"cd {_ROOT} && exec {sys.executable} -m tools.continuity --role {role} {words}"


def measure(restarts: int, rate: int, *, cloud: bool = False) -> Outcome:
    """Through local publish/subscribe, or with `cloud` through the cloud's broker, with QoS 1 and back."""
    with tempfile.TemporaryDirectory(prefix="cont-") as name:
        folder = Path(name)
        system = systems.System(folder / "s")
        try:
            if cloud:
                system.start_cloud()
                system.create_device("dev")
            nucleus = local_nucleus.Nucleus(system.device("dev"))
            try:
                return _measure(nucleus, folder, restarts, rate, cloud)
            finally:
                nucleus.close()
        finally:
            system.close()


def _measure(nucleus: local_nucleus.Nucleus, folder: Path, restarts: int, rate: int, cloud: bool) -> Outcome:
    options = ("--folder", folder, "--rate", rate, *(["--cloud"] if cloud else []))
    subscriber = local_nucleus.recipe(SUBSCRIBER, program("subscribe", *options))
    publisher = local_nucleus.recipe(PUBLISHER, program("publish", *options))
    publisher["ComponentDependencies"] = {SUBSCRIBER: {"VersionRequirement": "1.0.0"}}
    nucleus.deploy([subscriber, publisher])
    systems.wait_for(lambda: (folder / "publishing").exists(), "the publisher to begin", WITHIN_S)
    before = local_nucleus.pids(nucleus.root)
    _pause.wait(PERIOD_S)
    moments = []
    for _ in range(restarts):
        moments.append(time.monotonic())
        nucleus.restart()
        _pause.wait(PERIOD_S)
    (folder / "stop").touch()
    systems.wait_for(lambda: (folder / "published.json").exists(), "the publisher to end", WITHIN_S)
    published = json.loads((folder / "published.json").read_text())
    (folder / "stop-listening").touch()
    systems.wait_for(lambda: (folder / "received.json").exists(), "the subscriber to end", WITHIN_S)
    received = json.loads((folder / "received.json").read_text())
    return _judge(published, received, moments, (before, local_nucleus.pids(nucleus.root)), nucleus.log(), cloud)


def _judge(
    published: dict[str, Any], received: list[Any], moments: list[float], found: tuple[Any, Any], log: str, cloud: bool
) -> Outcome:
    numbers = collections.Counter(number for number, _ in received)
    times = [moment for _, moment in received]
    pauses = [(at, at - earlier) for earlier, at in itertools.pairwise(times)]
    gaps = [max((long for at, long in pauses if begin < at < begin + PERIOD_S), default=0.0) for begin in moments]
    quiet = [long for at, long in pauses if not moments or at < moments[0]]
    return Outcome(
        sent=published["sent"],
        failed=published["failed"],
        lost=sum(number not in numbers for number in range(published["sent"])),
        doubled=sum(times > 1 for times in numbers.values()),
        gaps_ms=tuple(gap * 1000 for gap in gaps),
        usual_ms=max(quiet, default=0.0) * 1000,
        pids_before=found[0],
        pids_after=found[1],
        cloud=cloud,
        log=log,
    )


# ---- the two components --------------------------------------------------------------------------------------------------


def _client() -> Any:
    from awsiot.greengrasscoreipc import clientv2

    return clientv2.GreengrassCoreIPCClientV2(executor=None)


def publish(folder: Path, rate: int, cloud: bool) -> None:
    """Publishes numbers at a steady rate without waiting for answers, and counts those that failed."""
    from awsiot.greengrasscoreipc import model

    ipc = _client()
    answers: list[Any] = []
    systems.wait_for(lambda: (folder / "listening").exists(), "the subscriber", WITHIN_S)
    (folder / "publishing").touch()
    begin = time.monotonic()
    while not (folder / "stop").exists():
        text = str(len(answers)).encode()
        if cloud:
            answers.append(ipc.publish_to_iot_core_async(topic_name=TOPIC, qos="1", payload=text))
        else:
            message = model.PublishMessage(binary_message=model.BinaryMessage(message=text))
            answers.append(ipc.publish_to_topic_async(topic=TOPIC, publish_message=message))
        _pause.wait(max(begin + len(answers) / rate - time.monotonic(), 0))
    failed = sum(_has_failed(one) for one in answers)
    _write(folder / "published.json", {"sent": len(answers), "failed": failed})
    _pause.wait()


def _has_failed(answer: Any) -> bool:
    try:
        answer.result(WITHIN_S)
    except Exception as error:  # whatever it is, it is counted
        print(f"publish failed: {error!r}", flush=True)
        return True
    return False


def subscribe(folder: Path, cloud: bool) -> None:
    """Writes down what comes and when."""
    ipc = _client()
    received: list[tuple[int, float]] = []

    def take(event: Any) -> None:
        payload = event.message.payload if cloud else event.binary_message.message
        received.append((int(payload), time.monotonic()))

    closed = {"on_stream_closed": lambda: print("closed", flush=True)}
    if cloud:
        ipc.subscribe_to_iot_core(topic_name=TOPIC, qos="1", on_stream_event=take, **closed)
    else:
        ipc.subscribe_to_topic(topic=TOPIC, on_stream_event=take, **closed)
    (folder / "listening").touch()
    while not (folder / "stop-listening").exists():
        _pause.wait(0.05)
    _pause.wait(2.0 if cloud else 0.3)
    _write(folder / "received.json", received)
    _pause.wait()


def _write(path: Path, value: Any) -> None:
    path.with_suffix(".new").write_text(json.dumps(value))
    path.with_suffix(".new").replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--rate", type=int, default=500, help="messages a second")
    parser.add_argument("--cloud", action="store_true", help="through the cloud's broker; there QoS 1 may double")
    parser.add_argument("--role", choices=("publish", "subscribe"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        if given.role == "publish":
            publish(given.folder, given.rate, given.cloud)
        else:
            subscribe(given.folder, given.cloud)
        return 0
    found = measure(given.restarts, given.rate, cloud=given.cloud)
    gaps = sorted(found.gaps_ms)
    print(
        f"{given.restarts} orderly restarts under {given.rate} messages/s (awsiotsdk, {'cloud' if given.cloud else 'local'})"
    )
    print(f"sent {found.sent}, failed {found.failed}, lost {found.lost}, doubled {found.doubled}")
    print(f"gap of each restart: longest {gaps[-1]:.0f} ms, median {gaps[len(gaps) // 2]:.0f} ms (goal < 300 ms)")
    print(f"longest without a restart: {found.usual_ms:.0f} ms")
    print(f"processes {'unchanged' if found.pids_before == found.pids_after else 'CHANGED'}: {found.pids_after}")
    return 0 if found.is_good() else 1


if __name__ == "__main__":
    sys.exit(main())
