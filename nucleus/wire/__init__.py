"""Bytes to values and back, without doing any input or output (sans-io).

What flows in: bytes and values of `core`. What flows out: frames, packets, payload records, typed protocol errors.
Forbidden: sockets, asyncio, files, clocks, logging. Shared by both ends: device and cloud.
"""
