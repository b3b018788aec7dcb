"""The service's memory: schema, and SQL as one function per question (SQLAlchemy Core).

Functions take an open connection inside a transaction (`tx`) and return rows or records. Forbidden: HTTP, MQTT.
"""
