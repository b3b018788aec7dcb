"""The Greengrass IPC served to components over a Unix socket.

What flows in: frames of components. What flows out: answers and events. `operations.py` is the one table of operations;
handlers are grouped by noun. `client.py` is a single-file synchronous client for components (standard library only).
Forbidden: deciding about lifecycle or deployments; handlers ask actors.
"""
