"""The loader: a POSIX shell script, put into `<root>/bin` once, that starts the nucleus and keeps it started.

No code here. What it reads and moves (links below `<root>/alts`) is described in `host/launch.py`; an update of the nucleus
never replaces it, so it must understand every release: it knows links, one file `python`, exit codes, and nothing else.
"""
