"""Components that are part of the nucleus itself and resolve as dependencies without the cloud.

They take configuration from deployments but have no processes of their own. What a deployment has brought is recorded at
`services.<name>` like any other component and is told with the others (actors/builtins.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nucleus.core import client_devices, configuration, negotiate, recipe, status, version

NUCLEUS = "aws.greengrass.Nucleus"
CLI = "aws.greengrass.Cli"
TOKEN_EXCHANGE = "aws.greengrass.TokenExchangeService"  # noqa: S105  a name
SHADOW_MANAGER = "aws.greengrass.ShadowManager"
SECRET_MANAGER = "aws.greengrass.SecretManager"  # noqa: S105  a name
DISK_SPOOLER = "aws.greengrass.DiskSpooler"
CLIENT_DEVICES = "aws.greengrass.clientdevices.Auth"
NAMES = frozenset({NUCLEUS, CLI, TOKEN_EXCHANGE, SHADOW_MANAGER, SECRET_MANAGER, DISK_SPOOLER, CLIENT_DEVICES})

# Default configuration of each, as the recipe's ComponentConfiguration.DefaultConfiguration would have it.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    SHADOW_MANAGER: {
        "strategy": {"type": "realTime"},
        "synchronize": {"direction": "betweenDeviceAndCloud"},
        "rateLimits": {
            "maxOutboundSyncUpdatesPerSecond": 100,
            "maxTotalLocalRequestsRate": 200,
            "maxLocalRequestsPerSecondPerThing": 20,
        },
        "shadowDocumentSizeLimitBytes": 8192,
    },
    SECRET_MANAGER: {"cloudSecrets": []},
    CLIENT_DEVICES: client_devices.DEFAULTS,
}


def candidate(ask: negotiate.Ask) -> negotiate.Candidate | None:
    """The built-in component if it meets the requirements, else None. Its version is the one we claim."""
    ours = version.Version.parse(status.VERSION)
    if not all(version.Range.parse(text).allows(ours) for _, text in ask.requirements):
        return None
    text = json.dumps(
        {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": ask.name,
            "ComponentVersion": status.VERSION,
            "ComponentType": kind(ask.name),
            "ComponentConfiguration": {"DefaultConfiguration": DEFAULTS.get(ask.name, {})},
            "Manifests": [{}],
        }
    )
    return negotiate.Candidate(name=ask.name, version=status.VERSION, recipe=recipe.read(text.encode(), "built-in"))


def kind(name: str) -> str:
    """The component type of a built-in component."""
    return "aws.greengrass.nucleus" if name == NUCLEUS else "aws.greengrass.plugin"


def recorded(tree: configuration.Tree) -> dict[str, str]:
    """The built-in components that deployments have brought, and their versions."""
    found = {}
    for name in NAMES:
        try:
            found[name] = str(configuration.get(tree, ("services", name, "version")))
        except KeyError:
            continue
    return found


def in_force(tree: configuration.Tree, name: str) -> bool:
    """Whether a deployment has brought it, or the configuration file configures it: only then it serves anybody."""
    if name in recorded(tree):
        return True
    return bool(configuration.plain(configuration.subtree(tree, ("services", name, "configuration"))))
