"""Publishes a reading at a steady rate; the rate comes from the component's configuration.

    sensor_publisher.py

Only the official client (pip install awsiotsdk); runs on AWS IoT Greengrass v2 and on Marram as it is.
"""

from __future__ import annotations

import itertools
import threading

from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2
from awsiot.greengrasscoreipc.model import JsonMessage, PublishMessage


def main() -> None:
    client = GreengrassCoreIPCClientV2()
    settings = client.get_configuration(key_path=[]).value
    topic, pause_s = settings["topic"], float(settings["intervalSeconds"])
    for number in itertools.count(1):
        reading = {"number": number, "celsius": 20 + number % 7 / 2}
        client.publish_to_topic(topic=topic, publish_message=PublishMessage(json_message=JsonMessage(message=reading)))
        threading.Event().wait(pause_s)


if __name__ == "__main__":
    main()
