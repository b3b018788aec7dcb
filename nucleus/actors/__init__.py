"""The living parts of the daemon, one owner for each piece of state.

Each takes events from one bounded queue, asks `core` for a decision and performs the returned commands.
Forbidden: importing `ipc` or `cli`; locks; tasks born outside a TaskGroup.
"""
