"""The way to the cloud: MQTT, HTTPS, artifact downloads, the two sources of deployments.

What flows in: messages to send, asks for candidates, artifacts to fetch.
What flows out: messages, candidates, verified files, documents.
Forbidden: touching components; an answer of the cloud is handed on as a value.
"""
