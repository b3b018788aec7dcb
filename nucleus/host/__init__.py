"""The operating system: processes, files, the journal, log files.

What flows in: paths, command lines, bytes. What flows out: exit codes, bytes read back, what a crash left behind.
Forbidden: deciding anything about components or deployments.
"""
