"""`marram deploy`: writes a full revision of a target, shows its plan, asks before a removal, and watches it happen."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Struct
from rich import console

from cloud.cli import progress, revision, targets
from cloud.cli import session as sessions
from cloud.cli import watch as watching
from nucleus.cli import arguments, exits, output


class Base(Struct, frozen=True):
    """What the next revision starts from: the chosen revision, and the newest one if that is another."""

    components: Mapping[str, Any]
    newest: Mapping[str, Any]
    policies: Mapping[str, Any]
    number: str = ""


@click.command()
@click.argument("components", nargs=-1, metavar="NAME=VERSION...")
@click.option("-t", "--target", required=True, metavar="GROUP|thing:NAME", help="What to change.")
@click.option("--config", multiple=True, metavar="FILE|JSON", help="Updates: component to MERGE and RESET; repeatable.")
@click.option("--remove", multiple=True, metavar="NAME", help="Component to remove; repeatable.")
@click.option("--from-last-good", is_flag=True, help="Start from the newest revision that failed nowhere.")
@click.option("--from-latest", is_flag=True, help="Start from the newest revision although it failed.")
@click.option("--name", default="", help="A name for the deployment.")
@click.option("--on-failure", type=click.Choice(["ROLLBACK", "DO_NOTHING"]), help="What a device does then.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before a removal.")
@click.option(
    "--dry-run", is_flag=True, help="Print the plan and stop: exit code 0 if nothing would change, otherwise 2."
)
@click.option("--no-wait", is_flag=True, help="Return when the service has accepted it.")
@click.option("--timeout", "timeout_s", default=0.0, metavar="SECONDS", help="Stop watching then (exit code 4).")
@sessions.option
@output.option
def deploy(root: Path | None, target: str, output_: str, **options: Any) -> int:
    """Deploys component versions to a group or a thing; all its other components stay as they are.

    Exit codes: 0 succeeded everywhere, 2 not everywhere, 3 rolled back, 4 timed out, 5 not authorised, 1 any other error.
    """
    if options["from_last_good"] and options["from_latest"]:
        raise click.UsageError("--from-last-good and --from-latest exclude each other")
    session = sessions.open_session(root)
    arn = targets.arn(session, target)
    base = _base(session, arn, last_good=options["from_last_good"], latest=options["from_latest"])
    plan = _plan(base, options)
    out = console.Console(stderr=output_ == "json")
    _print(out, target, base, plan)
    if options["dry_run"]:
        return exits.UNSATISFIED if plan.steps else exits.OK
    _confirm(plan, target, sure=options["yes"])
    request = _request(arn, plan, base, options)
    made = session.client("greengrassv2").create_deployment(**request)
    out.print(f"Deployment {made['deploymentId']}", highlight=False)
    standing = progress.Standing(made["deploymentId"], "ACTIVE")
    code = exits.OK
    if not options["no_wait"]:
        names = frozenset(step.component for step in plan.steps)
        standing, code = watching.follow(session, made["deploymentId"], out, names, options["timeout_s"])
        watching.conclude(out, standing, code)
    if output_ == "json":
        output.record("deployment", {**msgspec.to_builtins(standing), "exitCode": code}, output_)
    return code


def _base(session: sessions.Session, arn: str, *, last_good: bool, latest: bool) -> Base:
    greengrass = session.client("greengrassv2")
    pages = greengrass.get_paginator("list_deployments").paginate(targetArn=arn, historyFilter="ALL")
    history = [one for page in pages for one in page["deployments"]]
    history.sort(key=lambda one: int(one["revisionId"]), reverse=True)
    if not history:
        if last_good:
            raise exits.Failure("cannot start from the last good revision: the target has none")
        return Base({}, {}, {})
    newest = greengrass.get_deployment(deploymentId=history[0]["deploymentId"])
    failures = progress.read(session, newest["deploymentId"]).failures
    if failures and not (last_good or latest):
        told = "\n".join(f"  {', '.join(things)}: {cause}" for cause, things in progress.causes(failures))
        what = f"cannot go on from revision {newest['revisionId']}: it failed\n{told}\n"
        raise exits.Failure(what + "Give --from-last-good to start from the newest good one, or --from-latest.")
    chosen = newest
    if last_good:
        good = next((one for one in history if _is_good(session, one["deploymentId"])), None)
        if good is None:
            raise exits.Failure("cannot start from the last good revision: none succeeded without a failure")
        chosen = greengrass.get_deployment(deploymentId=good["deploymentId"])
    components = chosen.get("components", {})
    return Base(components, newest.get("components", {}), chosen.get("deploymentPolicies", {}), chosen["revisionId"])


def _is_good(session: sessions.Session, deployment_id: str) -> bool:
    standing = progress.read(session, deployment_id)
    return not standing.failures and any(device.succeeded for device in standing.devices)


def _plan(base: Base, options: Mapping[str, Any]) -> revision.Plan:
    wanted = arguments.versions(options["components"])
    updates = arguments.updates(options["config"])
    try:
        plan = revision.plan(base.components, wanted, updates, options["remove"], base.newest)
    except ValueError as error:
        raise exits.Failure(str(error)) from None
    if not (wanted or updates or options["remove"] or plan.steps):
        raise click.UsageError("nothing to do: name components as NAME=VERSION, or give --config or --remove")
    return plan


def _print(out: console.Console, target: str, base: Base, plan: revision.Plan) -> None:
    start = f", starting from revision {base.number}" if base.number else ""
    out.print(f"Plan for {target}{start}:", highlight=False, markup=False)
    styles = {revision.ADD: "green", revision.REMOVE: "red"}
    for step in plan.steps:
        out.print(f"  {step}", style=styles.get(step.action, "yellow"), highlight=False, markup=False)
    if plan.unchanged:
        kept = f"  = {', '.join(plan.unchanged)} unchanged"
        out.print(kept, style="dim", highlight=False, markup=False, soft_wrap=True)
    if not plan.steps:
        out.print("  nothing changes; devices get it as a new revision", highlight=False)


def _confirm(plan: revision.Plan, target: str, *, sure: bool) -> None:
    if not plan.removes() or sure:
        return
    gone = ", ".join(step.component for step in plan.steps if step.action == revision.REMOVE)
    if not sys.stdin.isatty():
        raise exits.Failure(f"cannot remove {gone} from {target} without asking: give --yes")
    click.confirm(f"Remove {gone} from every device of {target}?", abort=True)


def _request(arn: str, plan: revision.Plan, base: Base, options: Mapping[str, Any]) -> dict[str, Any]:
    request: dict[str, Any] = {"targetArn": arn, "components": plan.components}
    policies = dict(base.policies)
    if options["on_failure"]:
        policies["failureHandlingPolicy"] = options["on_failure"]
    if policies:
        request["deploymentPolicies"] = policies
    if options["name"]:
        request["deploymentName"] = options["name"]
    return request
