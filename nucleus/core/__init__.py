"""Pure decisions of the device: values in, values out.

What flows in: parsed bytes, the time (`now`), random numbers, ids. What flows out: values and lists of commands.
Forbidden: files, sockets, clocks, randomness, logging, asyncio, the environment, and imports from any other package of ours.
"""
