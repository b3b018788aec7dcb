"""`make crash`: kills the device core after every durable write, and replays its disk with unsynced parts lost or torn.

`child.py` runs one scenario of deployments on an in-process device (real files, real processes) and, told so, kills itself
with SIGKILL right after its n-th fsync. `recorder.py` sees the writes by standing in for the functions of `os` in that child
only. `update.py` does the same to the own update, with real daemons under their loader. `disk.py` rebuilds what a disk may
hold after power was lost. `runner.py` puts them together and judges.
"""
