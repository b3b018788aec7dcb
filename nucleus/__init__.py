"""The device half of Marram: takes deployments, runs components, serves them the Greengrass IPC, reports health.

Layers, each importing only those to its right (checked by tests/rules):
app -> ipc -> actors -> uplink -> store -> host -> wire -> core; cli talks to a running daemon through ipc.client.
"""
