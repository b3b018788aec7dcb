"""`marram deployment create|status|list|cancel`: local deployments, with the options of greengrass-cli (spec/nucleus.md 8.1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from nucleus.cli import arguments, daemon, exits, output

_DIRECTORY = click.Path(path_type=Path, file_okay=False, exists=True)


def asking(command: daemon.Command) -> daemon.Command:
    """The options that say what to deploy, the same for `create` and `plan`."""
    policies = click.Choice(["ROLLBACK", "DO_NOTHING"])
    for option in reversed(
        [
            click.option("-m", "--merge", multiple=True, metavar="NAME=VERSION", help="Component to add or change."),
            click.option("--remove", multiple=True, metavar="NAME[,NAME]", help="Components to remove; repeatable."),
            click.option("-g", "--groupId", "group", default="", help="Thing group whose components to change."),
            click.option("-r", "--recipeDir", "recipes", type=_DIRECTORY, help="Folder of recipes."),
            click.option("-a", "--artifactDir", "artifacts", type=_DIRECTORY, help="Folder <name>/<version>/<files>."),
            click.option(
                "--runWith", "run_with", multiple=True, metavar="NAME:posixUser=USER[:GROUP]", help="Who runs it."
            ),
            click.option(
                "--systemLimits", "limits", default="", metavar="JSON", help="NAME to {memory: KB, cpus: number}."
            ),
            click.option(
                "-c", "--update-config", "config", multiple=True, metavar="JSON|FILE", help="Configuration updates."
            ),
            click.option("-fp", "--failure-handling-policy", "policy", type=policies, help="What then."),
        ]
    ):
        command = option(command)
    return command


@click.command("create")
@daemon.option
@asking
@output.option
def create(root: Path, output_: str, **options: Any) -> None:
    """Queues a local deployment and prints its id."""
    wanted = request(**options)
    with daemon.connect(root) as ipc:
        answer = ipc.call("CreateLocalDeployment", wanted)
    if output_ == "json":
        click.echo(output.as_json({"schemaVersion": output.SCHEMA_VERSION, **answer}))
    else:
        click.echo(f"Local deployment submitted. Its id: {answer['deploymentId']}")


@click.command("cancel")
@click.option("-i", "--deploymentId", "deployment_id", required=True)
@daemon.option
def cancel(deployment_id: str, root: Path) -> None:
    """Cancels a local deployment, queued or running; what it changed already is restored."""
    with daemon.connect(root) as ipc:
        answer = ipc.call("CancelLocalDeployment", {"deploymentId": deployment_id})
    click.echo(answer.get("message") or f"deployment {deployment_id} is being cancelled")


@click.command("status")
@click.option("-i", "--deploymentId", "deployment_id", required=True)
@daemon.option
@output.option
def status(deployment_id: str, root: Path, output_: str) -> int:
    """Shows one local deployment; 2 or 3 as exit code when it failed or was rolled back."""
    with daemon.connect(root) as ipc:
        found = ipc.call("GetLocalDeploymentStatus", {"deploymentId": deployment_id})["deployment"]
    output.record("localDeployment", found, output_)
    return code_of(found)


@click.command("list")
@daemon.option
@output.option
def list_deployments(root: Path, output_: str) -> None:
    """Lists the local deployments of this device."""
    with daemon.connect(root) as ipc:
        found = ipc.call("ListLocalDeployments", {}).get("localDeployments", [])
    columns = {"DEPLOYMENT": "deploymentId", "STATUS": "status", "CREATED": "createdOn"}
    output.show("localDeployments", found, columns, output_)


def code_of(found: dict[str, Any]) -> int:
    """The exit code that tells how a local deployment ended; OK while it is open."""
    if found["status"] not in ("FAILED", "CANCELED"):
        return exits.OK
    detail = found.get("deploymentStatusDetails", {}).get("detailedDeploymentStatus", "")
    return exits.ROLLED_BACK if detail == "FAILED_ROLLBACK_COMPLETE" else exits.UNSATISFIED


def request(
    *,
    merge: tuple[str, ...],
    remove: tuple[str, ...],
    group: str,
    recipes: Path | None,
    artifacts: Path | None,
    run_with: tuple[str, ...],
    limits: str,
    config: tuple[str, ...],
    policy: str | None,
) -> dict[str, Any]:
    """The CreateLocalDeploymentRequest that the options of `asking` say."""
    wanted: dict[str, Any] = {
        "groupName": group,
        "rootComponentVersionsToAdd": arguments.versions(merge),
        "rootComponentsToRemove": [name for text in remove for name in text.split(",") if name],
        "componentToConfiguration": arguments.updates(config),
        "componentToRunWithInfo": _run_with(run_with, limits),
        "recipeDirectoryPath": str(recipes.absolute()) if recipes else "",
        "artifactsDirectoryPath": str(artifacts.absolute()) if artifacts else "",
        "failureHandlingPolicy": policy or "",
    }
    return {key: value for key, value in wanted.items() if value}


def _run_with(texts: tuple[str, ...], limits: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, _, setting = text.partition(":")
        key, _, user = setting.partition("=")
        if key not in ("posixUser", "windowsUser") or not user:
            raise click.BadParameter(f"{text!r} is not NAME:posixUser=USER[:GROUP]")
        found.setdefault(name, {})[key] = user
    try:
        for name, limit in (json.loads(limits) if limits else {}).items():
            found.setdefault(name, {})["systemResourceLimits"] = limit
    except (ValueError, AttributeError):
        raise click.BadParameter("the system limits are no JSON object of component to limits") from None
    return found
