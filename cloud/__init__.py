"""The cloud half of Marram: registry, deployments, jobs and shadows over MQTT, fleet status, identities, artifacts.

Layers: app -> api, mqtt -> store, objects -> core -> nucleus.wire, nucleus.core (and nothing else of nucleus).
"""
