"""The embedded broker: MQTT 3.1.1 and 5 with QoS 0 and 1, shaped like AWS IoT Core's, in a process of its own.

Bytes flow in at `connection` (socket, TLS, pacing, back-pressure), become packets of `nucleus.wire.mqtt`, are judged by
`conversation` and `admission` against `principals`, and reach subscribers through `router` and `session`. What must outlive
a SIGKILL goes through `journal` (SQLite, group commit). `control` takes the service's own orders.
Forbidden: tables of the service (principals are pushed to the broker), blocking calls outside the journal's thread.
"""
