"""Components that are part of the nucleus itself and resolve as dependencies without the cloud.

They take configuration from deployments but have no processes. The rest of the original's built-ins come with the issue
"The device core".
"""

from __future__ import annotations

from nucleus.core import negotiate, recipe, status, version

NUCLEUS = "aws.greengrass.Nucleus"
CLI = "aws.greengrass.Cli"
TOKEN_EXCHANGE = "aws.greengrass.TokenExchangeService"  # noqa: S105  a name
NAMES = frozenset({NUCLEUS, CLI, TOKEN_EXCHANGE})


def candidate(ask: negotiate.Ask) -> negotiate.Candidate | None:
    """The built-in component if it meets the requirements, else None. Its version is the one we claim."""
    ours = version.Version.parse(status.VERSION)
    if not all(version.Range.parse(text).allows(ours) for _, text in ask.requirements):
        return None
    kind = "aws.greengrass.nucleus" if ask.name == NUCLEUS else "aws.greengrass.plugin"
    text = (
        f'{{"RecipeFormatVersion":"2020-01-25","ComponentName":"{ask.name}","ComponentVersion":"{status.VERSION}",'
        f'"ComponentType":"{kind}","Manifests":[{{}}]}}'
    )
    return negotiate.Candidate(name=ask.name, version=status.VERSION, recipe=recipe.read(text.encode(), "built-in"))
