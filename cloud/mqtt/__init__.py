"""MQTT on the service side: the embedded broker (a child process) and the services that live on its topics.

What flows in: packets of devices; changes of the store. What flows out: messages, drained from the outbox at least once.
Forbidden: importing `cloud.api`; answering a device from anything but the store.
"""
