"""Takes a new setpoint without a restart, refuses an impossible one, and defers updates of the device while a batch runs.

    setpoint_listener.py

Three subscriptions: the configuration's values as they change, proposals of a deployment, and the question whether the
device's components may be updated now. While the file `batch-running` lies in the work folder the answer is "ask me again".
`state.json` there says what the component has done. Only the official client (pip install awsiotsdk); runs on AWS IoT
Greengrass v2 and on Marram as it is.
"""

from __future__ import annotations

import json
import os
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2
from awsiot.greengrasscoreipc.model import ConfigurationValidityReport

BATCH = Path("batch-running")
AGAIN_MS = 1000
HIGHEST = 90.0


class Listener:
    """Events come on the client's thread and are worked on by ours, one after the other: a handler may call the client."""

    def __init__(self) -> None:
        self._client = GreengrassCoreIPCClientV2(executor=None)
        self._todo: queue.Queue[Callable[[], None]] = queue.Queue()
        self._state: dict[str, Any] = {"pid": os.getpid(), "setpoint": None, "deferred": 0, "agreed": 0, "refused": 0}

    def run(self) -> None:
        self._client.subscribe_to_configuration_update(
            key_path=["setpoint"], on_stream_event=lambda _: self._todo.put(self._read)
        )
        self._client.subscribe_to_validate_configuration_updates(
            on_stream_event=lambda event: self._todo.put(lambda: self._judge(event.validate_configuration_update_event))
        )
        self._client.subscribe_to_component_updates(
            on_stream_event=lambda event: self._todo.put(lambda: self._consent(event.pre_update_event))
        )
        self._read()
        while True:
            self._todo.get()()

    def _read(self) -> None:
        self._tell(setpoint=self._client.get_configuration(key_path=["setpoint"]).value["setpoint"])

    def _judge(self, proposal: Any) -> None:
        fits = float(proposal.configuration["setpoint"]) <= HIGHEST
        report = ConfigurationValidityReport(
            status="ACCEPTED" if fits else "REJECTED",
            deployment_id=proposal.deployment_id,
            message="" if fits else f"a setpoint above {HIGHEST} would boil",
        )
        self._client.send_configuration_validity_report(configuration_validity_report=report)
        self._tell(refused=self._state["refused"] + (not fits))

    def _consent(self, question: Any) -> None:
        if question is None:  # the post event
            return
        busy = BATCH.exists()
        self._client.defer_component_update(
            deployment_id=question.deployment_id,
            recheck_after_ms=AGAIN_MS if busy else 0,
            message="a batch is running" if busy else "",
        )
        name = "deferred" if busy else "agreed"
        self._tell(**{name: self._state[name] + 1})

    def _tell(self, **news: Any) -> None:
        self._state.update(news)
        Path("state.new").write_text(json.dumps(self._state))
        Path("state.new").replace("state.json")


if __name__ == "__main__":
    Listener().run()
