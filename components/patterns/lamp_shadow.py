"""A lamp that does what its shadow desires and reports what it is.

    lamp_shadow.py THING SHADOW

It works with the shadow on the device, so it also works offline; a synchronised shadow brings the wishes of the cloud and
takes the reports there. Only the official client (pip install awsiotsdk); runs on AWS IoT Greengrass v2 and on Marram as it
is.
"""

from __future__ import annotations

import json
import queue
import sys
from typing import Any

from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2
from awsiot.greengrasscoreipc.model import ResourceNotFoundError


class Lamp:
    """`state` is what the lamp is: on or not, and how bright."""

    def __init__(self, thing: str, shadow: str) -> None:
        self._client = GreengrassCoreIPCClientV2(executor=None)
        self._shadow = {"thing_name": thing, "shadow_name": shadow}
        self._topic = f"$aws/things/{thing}/shadow/name/{shadow}/update/delta"
        self.state: dict[str, Any] = {"on": False, "brightness": 0}

    def run(self) -> None:
        deltas: queue.Queue[bytes] = queue.Queue()
        self._client.subscribe_to_topic(
            topic=self._topic, on_stream_event=lambda event: deltas.put(bytes(event.binary_message.message))
        )
        self._begin()
        while True:
            self._obey(json.loads(deltas.get())["state"])

    def _begin(self) -> None:
        """What was desired while the lamp was away counts, too."""
        try:
            found = json.loads(bytes(self._client.get_thing_shadow(**self._shadow).payload))["state"]
        except ResourceNotFoundError:
            found = {}
        self._obey({**self.state, **found.get("desired", {})})

    def _obey(self, wanted: dict[str, Any]) -> None:
        self.state.update({name: wanted[name] for name in self.state if name in wanted})
        reported = json.dumps({"state": {"reported": self.state}}).encode()
        self._client.update_thing_shadow(**self._shadow, payload=reported)


if __name__ == "__main__":
    Lamp(*sys.argv[1:]).run()
