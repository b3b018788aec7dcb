"""Listens to every sensor of the device and keeps a summary of each in its own configuration, where others may read it.

    sensor_subscriber.py

Only the official client (pip install awsiotsdk); runs on AWS IoT Greengrass v2 and on Marram as it is.
"""

from __future__ import annotations

import datetime
import queue
from typing import Any

from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2
from awsiot.greengrasscoreipc.model import SubscriptionResponseMessage


class Summary:
    """What is known about one sensor."""

    def __init__(self) -> None:
        self.count = 0
        self.highest = float("-inf")
        self.last = 0

    def add(self, reading: dict[str, Any]) -> None:
        self.count += 1
        self.last = int(reading["number"])
        self.highest = max(self.highest, float(reading["celsius"]))


def main() -> None:
    client = GreengrassCoreIPCClientV2(executor=None)  # events in their order
    every = int(client.get_configuration(key_path=["summaryEvery"]).value["summaryEvery"])
    events: queue.Queue[SubscriptionResponseMessage] = queue.Queue()
    client.subscribe_to_topic(topic="sensors/+", on_stream_event=events.put)
    summaries: dict[str, Summary] = {}
    while True:
        message = events.get().json_message
        sensor = message.context.topic.rsplit("/", 1)[1]
        summary = summaries.setdefault(sensor, Summary())
        summary.add(message.message)
        if summary.count % every == 0:
            told = {"count": summary.count, "last": summary.last, "highest": summary.highest}
            now = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017  components may run on older Pythons
            client.update_configuration(key_path=["summaries", sensor], timestamp=now, value_to_merge=told)


if __name__ == "__main__":
    main()
