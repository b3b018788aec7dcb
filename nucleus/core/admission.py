"""What this nucleus refuses although it was resolved, before anything is changed: containers, Lambda functions, jar plug-ins,
and another minor version of itself that nobody asked for (spec/nucleus.md 1.4, 3.2, 10).

The codes are the original's (5.14); it has none for a Lambda function without its manager, so that one is COMPONENT_LOAD_FAILURE.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nucleus.core import builtin, errors, negotiate, recipe, recipe_artifact, release, version

DOCKER_MANAGER = "aws.greengrass.DockerApplicationManager"
LAMBDA_PARTS = frozenset(f"aws.greengrass.Lambda{part}" for part in ("Launcher", "Manager", "Runtimes"))

_NO_CONTAINERS = (
    "this nucleus runs no containers yet (they come in a later release): ship the program's files as s3:// or "
    "greengrass: artifacts, or let a Run script start the container itself, without a docker: artifact"
)
_NO_LAMBDA = (
    "this nucleus runs no Lambda functions yet (they come with containers, in a later release): publish the function's "
    "code as a generic component whose Run script calls it"
)
_NO_PLUGINS = (
    "a jar plug-in runs inside the original's Java nucleus only: leave it out, or replace it by a generic component "
    "(built in are {built_in})"
)


def refuse_part(ask: negotiate.Ask) -> None:
    """Before anybody is asked for a component that only serves what cannot be run. Raises NucleusError."""
    who = ", ".join(requirer for requirer, _ in ask.requirements)
    if ask.name == DOCKER_MANAGER:
        raise _refused("MISSING_DOCKER_APPLICATION_MANAGER", f"{ask.name}, which {who} requires", _NO_CONTAINERS)
    if ask.name in LAMBDA_PARTS:
        raise _refused("COMPONENT_LOAD_FAILURE", f"{ask.name}, which {who} requires", _NO_LAMBDA)


def check(
    resolved: Mapping[str, negotiate.Candidate],
    targets: Collection[str],
    platform: Mapping[str, str],
    *,
    running: str = release.VERSION,
) -> None:
    """`targets` are the components that the deployment itself names, `running` this nucleus's version. Raises NucleusError."""
    for one in resolved.values():
        if one.name not in builtin.NAMES:
            _check_one(one, platform)
    own = resolved.get(release.COMPONENT)
    if own is None or release.COMPONENT in targets or _minor(own.version) == _minor(running):
        return
    raise errors.NucleusError(
        "UNAUTHORIZED_NUCLEUS_MINOR_VERSION_UPDATE",
        f"cannot change the nucleus from {running} to {own.version} as a mere dependency: name {release.COMPONENT} among "
        "the deployment's own components, or require the running minor version",
    )


def _check_one(one: negotiate.Candidate, platform: Mapping[str, str]) -> None:
    what, kind = f"{one.name} {one.version}", one.recipe.component_type
    if kind == recipe.LAMBDA:
        raise _refused("COMPONENT_LOAD_FAILURE", what, _NO_LAMBDA)
    if kind == recipe.PLUGIN:
        why = _NO_PLUGINS.format(built_in=", ".join(sorted(builtin.NAMES)))
        raise _refused("CUSTOM_PLUGIN_NOT_SUPPORTED", what, why)
    manifest = recipe.choose(one.recipe, platform)
    for artifact in manifest.artifacts if manifest is not None else ():
        if recipe_artifact.scheme(artifact.uri) == "docker":
            raise _refused("MISSING_DOCKER_APPLICATION_MANAGER", f"{what} with {artifact.uri[:200]}", _NO_CONTAINERS)


def _minor(text: str) -> tuple[int, int]:
    found = version.Version.parse(text)
    return found.major, found.minor


def _refused(code: str, what: str, why: str) -> errors.NucleusError:
    return errors.NucleusError(code, f"cannot install {what}: {why}")
