"""What the device remembers: configuration, component files, deployment facts.

What flows in: decided changes. What flows out: the state as last made durable. Every write goes
through `host.files` or `host.journal`.
Forbidden: talking to the network, starting processes, deciding.
"""
