"""The `marram` command: device and author verbs.

What flows in: arguments. What flows out: text for people, JSON for machines, exit codes of README.
Forbidden: importing actors, store or uplink; only `nucleus run` may start `nucleus.app`. Verbs are imported when called.
"""
