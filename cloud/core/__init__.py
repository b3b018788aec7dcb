"""Pure decisions of the service: policies, candidates, revisions, rollouts, TLS as a byte machine.

What flows in: rows, documents, bytes, the time. What flows out: values. Forbidden: SQL, sockets, clocks, logging.
"""
