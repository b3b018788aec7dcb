from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud.cli import listen, session
from nucleus.cli import exits
from nucleus.wire import jobs
from tests.cli import marram
from tests.cloud import device as devices

RECIPE = """\
RecipeFormatVersion: "2020-01-25"
ComponentName: {name}
ComponentVersion: "{version}"
Manifests:
  - Lifecycle:
      Run: echo {{artifacts:path}}
    Artifacts:
      - URI: s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/data.txt
"""


def _publish(service: Path, folder: Path, name: str, *versions: str) -> None:
    (folder / "data.txt").write_text("data")
    for version in versions:
        recipe = folder / f"{name}-{version}.yaml"
        recipe.write_text(RECIPE.format(name=name, version=version))
        shown = marram.run("component", "publish", recipe, "--root", service)
        assert shown.code == exits.OK, shown.err


def test_init_when_a_service_is_there_then_it_is_refused(service: Path) -> None:
    shown = marram.run("cloud", "init", "--root", service)

    assert shown.code == exits.ERROR
    assert "there is one already" in shown.err


@pytest.mark.parametrize("wrong", [("--account", "12"), ("--region", "here")])
def test_init_when_account_or_region_are_impossible_then_nothing_is_made(
    tmp_path: Path, wrong: tuple[str, str]
) -> None:
    shown = marram.run("cloud", "init", "--root", tmp_path / "new", *wrong)

    assert shown.code == exits.ERROR
    assert not (tmp_path / "new").exists()


def test_run_when_nothing_was_founded_then_the_cure_is_told(tmp_path: Path) -> None:
    shown = marram.run("cloud", "run", "--root", tmp_path)

    assert shown.code == exits.ERROR
    assert "marram cloud init" in shown.err


@pytest.mark.parametrize(("founded", "cure"), [(True, "marram cloud run"), (False, "marram cloud init")])
def test_verbs_when_the_service_does_not_run_then_the_next_step_is_told(
    tmp_path: Path, founded: bool, cure: str
) -> None:
    if founded:
        marram.run("cloud", "init", "--root", tmp_path)

    shown = marram.run("get", "devices", "--root", tmp_path)

    assert shown.code == exits.ERROR
    assert cure in shown.err


def test_verbs_when_the_key_is_wrong_then_the_code_is_5(service: Path, tmp_path: Path) -> None:
    (tmp_path / "operator").mkdir()
    (tmp_path / "endpoints.json").write_bytes((service / "endpoints.json").read_bytes())
    keys = (service / "operator" / "credentials").read_text()
    (tmp_path / "operator" / "credentials").write_text(keys.replace("secret_access_key = ", "secret_access_key = x"))

    for verb in (("get", "devices"), ("get", "things"), ("deploy", "-t", "g", "a=1.0.0")):
        assert marram.run(*verb, "--root", tmp_path).code == exits.NOT_AUTHORISED


def test_credentials_when_a_root_is_given_then_the_environment_does_not_count(
    service: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAWRONG",
        "AWS_SECRET_ACCESS_KEY": "wrong",
        "AWS_PROFILE": "no-such-profile",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_REGION": "eu-west-1",
        "MARRAM_ROOT": str(service),
    }.items():
        monkeypatch.setenv(name, value)

    assert marram.run("get", "things").code == exits.OK


def test_credentials_when_only_aws_variables_are_given_then_they_lead_to_the_service(
    service: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoints = json.loads((service / "endpoints.json").read_text())
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(service / "operator" / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(service / "operator" / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoints["api"])

    assert marram.run("get", "groups").code == exits.OK
    assert session.open_session(None).account == endpoints["account"]


def test_device_when_created_then_its_folder_has_all_a_nucleus_needs(service: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "device"

    shown = marram.run(
        "device",
        "create",
        name,
        "--to",
        root,
        "--group",
        f"g-{name}",
        "--user",
        "u:g",
        "--role-alias",
        "their-role",
        "--root",
        service,
    )

    assert shown.code == exits.OK, shown.err
    assert stat.S_IMODE((root / "device.key").stat().st_mode) == 0o600
    assert (root / "ca.pem").read_bytes() == (service / "ca.pem").read_bytes()
    config = yaml.safe_load((root / "config.yaml").read_text())
    assert config["system"]["thingName"] == name
    nucleus = config["services"]["aws.greengrass.Nucleus"]["configuration"]
    endpoints = json.loads((service / "endpoints.json").read_text())
    assert nucleus["mqtt"]["port"] == endpoints["mqtt"]["port"]
    assert endpoints["device"].endswith(f":{nucleus['greengrassDataPlanePort']}")
    assert nucleus["runWithDefault"] == {"posixUser": "u:g"}
    assert nucleus["iotRoleAlias"] == "their-role"
    things = marram.run("get", "things", "-g", f"g-{name}", "-o", "json", "--root", service).json
    assert things["items"] == [{"thingName": name}]


def test_device_when_its_folder_is_one_already_then_nothing_is_overwritten(
    service: Path, tmp_path: Path, name: str
) -> None:
    marram.run("device", "create", name, "--to", tmp_path, "--root", service)
    key = (tmp_path / "device.key").read_bytes()

    assert marram.run("device", "create", name, "--to", tmp_path, "--root", service).code == exits.ERROR
    assert (tmp_path / "device.key").read_bytes() == key


def test_publish_when_done_then_versions_and_components_list_it(service: Path, tmp_path: Path, name: str) -> None:
    _publish(service, tmp_path, name, "1.0.0", "1.10.0", "1.9.0")

    versions = marram.run("component", "versions", name, "-o", "json", "--root", service).json
    assert [one["componentVersion"] for one in versions["items"]] == ["1.10.0", "1.9.0", "1.0.0"]
    known = marram.run("get", "components", "-o", "json", "--root", service).json["items"]
    assert [one["latestVersion"]["componentVersion"] for one in known if one["componentName"] == name] == ["1.10.0"]


def test_publish_when_the_version_exists_then_it_is_refused_by_name(service: Path, tmp_path: Path, name: str) -> None:
    _publish(service, tmp_path, name, "1.0.0")

    shown = marram.run("component", "publish", tmp_path / f"{name}-1.0.0.yaml", "--root", service)

    assert shown.code == exits.ERROR
    assert name in shown.err
    assert "ConflictException" in shown.err


def test_publish_when_platforms_have_files_of_one_name_then_each_gets_its_own(
    service: Path, tmp_path: Path, name: str
) -> None:
    text = RECIPE.format(name=name, version="1.0.0")
    head, manifest = text.split("Manifests:\n")
    parts = []
    for platform in ("amd64", "aarch64"):
        (tmp_path / platform).mkdir()
        (tmp_path / platform / "data.txt").write_text(platform)
        own = manifest.replace("data.txt", f"{platform}/data.txt")
        parts.append(own.replace("  - Lifecycle", f"  - Platform: {{architecture: {platform}}}\n    Lifecycle"))
    (tmp_path / "recipe.yaml").write_text(head + "Manifests:\n" + "".join(parts))

    shown = marram.run("component", "publish", tmp_path / "recipe.yaml", "--root", service)

    assert shown.code == exits.OK, shown.err
    opened = session.open_session(service)
    client = opened.client("greengrassv2")
    arn = f"arn:aws:greengrass:{opened.region}:{opened.account}:components:{name}:versions:1.0.0"
    read = yaml.safe_load(client.get_component(arn=arn, recipeOutputFormat="YAML")["recipe"])
    digests = {each["Platform"]["architecture"]: each["Artifacts"][0]["Digest"] for each in read["Manifests"]}
    wanted = {each: base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in digests}
    assert digests == wanted
    assert len(digests) == 2


def test_publish_when_the_recipe_has_mistakes_then_none_of_it_is_uploaded(
    service: Path, tmp_path: Path, name: str
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(name=name, version="1.0").replace("Run:", "Rum:"))

    shown = marram.run("component", "publish", recipe, "--root", service)

    assert shown.code == exits.ERROR
    assert "recipe.yaml:3" in shown.err
    assert "recipe.yaml:6" in shown.err


def test_deploy_when_changes_follow_each_other_then_each_revision_is_whole(
    service: Path, tmp_path: Path, name: str
) -> None:
    _publish(service, tmp_path, name, "1.0.0", "1.1.0")
    _publish(service, tmp_path, f"{name}b", "1.0.0")
    marram.run("group", "create", name, "--root", service)

    config = json.dumps({name: {"MERGE": {"a": 1}}})
    marram.run(
        "deploy", "-t", name, f"{name}=1.0.0", f"{name}b=1.0.0", "--config", config, "--no-wait", "--root", service
    )
    shown = marram.run("deploy", "-t", name, f"{name}=1.1.0", "-o", "json", "--root", service)

    assert shown.code == exits.OK, shown.err
    assert shown.json["item"]["devices"] == []
    found = (
        session.open_session(service)
        .client("greengrassv2")
        .get_deployment(deploymentId=shown.json["item"]["deploymentId"])
    )
    assert found["revisionId"] == "2"
    assert {key: one["componentVersion"] for key, one in found["components"].items()} == {
        name: "1.1.0",
        f"{name}b": "1.0.0",
    }
    assert found["components"][name]["configurationUpdate"] == {"merge": '{"a": 1}'}
    listed = marram.run("get", "deployments", "-t", name, "-o", "json", "--root", service).json["items"]
    assert [one["revisionId"] for one in listed] == ["2", "1"]


def test_deploy_when_something_is_removed_then_it_asks_unless_told_yes(
    service: Path, tmp_path: Path, name: str
) -> None:
    _publish(service, tmp_path, name, "1.0.0")
    marram.run("group", "create", name, "--root", service)
    marram.run("deploy", "-t", name, f"{name}=1.0.0", "--root", service)

    asked = marram.run("deploy", "-t", name, "--remove", name, "--root", service)
    told = marram.run("deploy", "-t", name, "--remove", name, "--yes", "--root", service)

    assert (asked.code, told.code) == (exits.ERROR, exits.OK)
    assert "--yes" in asked.err
    assert f"- {name} 1.0.0" in told.out


def test_deploy_when_only_planned_then_there_is_no_revision(service: Path, tmp_path: Path, name: str) -> None:
    _publish(service, tmp_path, name, "1.0.0")
    marram.run("group", "create", name, "--root", service)

    shown = marram.run("deploy", "-t", name, f"{name}=1.0.0", "--dry-run", "--root", service)

    assert f"+ {name} 1.0.0" in shown.out
    assert shown.code == exits.UNSATISFIED
    assert marram.run("get", "deployments", "-t", name, "-o", "json", "--root", service).json["items"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such-component=1.0.0",), "no-such-component"),
        (("-t", "thing:ghost", "a=1.0.0"), "ghost"),
        (("-t", "nonsense:x", "a=1.0.0"), "neither GROUP nor thing:NAME"),
        ((), "nothing to do"),
        (("--from-last-good", "--from-latest", "a=1.0.0"), "exclude each other"),
    ],
)
def test_deploy_when_it_cannot_be_then_the_reason_is_told(
    service: Path, name: str, arguments: tuple[str, ...], said: str
) -> None:
    marram.run("group", "create", name, "--root", service)

    shown = marram.run("deploy", "-t", name, *arguments, "--root", service)

    assert shown.code == exits.ERROR
    assert said in shown.err


def test_deploy_when_the_newest_revision_failed_then_it_wants_to_know_where_to_start(
    service: Path, tmp_path: Path, name: str
) -> None:
    _publish(service, tmp_path, name, "1.0.0", "1.1.0", "1.2.0")
    files = devices.register(service, f"t-{name}", name)
    with _connected(service, f"t-{name}", files) as device:
        device.serve()
        _deploy_and_report(service, name, device, f"{name}=1.0.0", "SUCCEEDED")
        failed = _deploy_and_report(service, name, device, f"{name}=1.1.0", "FAILED")

        again = marram.run("deploy", "-t", name, f"{name}=1.2.0", "--root", service)
        good = marram.run("deploy", "-t", name, f"{name}=1.2.0", "--from-last-good", "--dry-run", "--root", service)
        late = marram.run("deploy", "-t", name, f"{name}=1.2.0", "--from-latest", "--dry-run", "--root", service)

    assert failed.code == exits.ROLLED_BACK
    assert f"Failed on t-{name}: it broke on purpose" in failed.out
    assert again.code == exits.ERROR
    assert "--from-last-good" in again.err
    assert "starting from revision 1" in good.out
    assert "starting from revision 2" in late.out
    reasons = marram.run("get", "effective", "--device", f"t-{name}", "-o", "json", "--root", service).json["items"]
    assert [one["coreDeviceExecutionStatus"] for one in reasons] == ["FAILED", "SUCCEEDED"]


@contextlib.contextmanager
def _connected(service: Path, thing: str, files: dict[str, str]) -> Iterator[devices.Device]:
    device = devices.Device(service, thing, files)
    device.connect()
    try:
        yield device
    finally:
        device.close()


def _deploy_and_report(service: Path, group: str, device: devices.Device, wanted: str, status: str) -> marram.Result:
    """Deploys without waiting, reports as the device does, then watches by an unchanged revision's standing."""
    made = marram.run("deploy", "-t", group, wanted, "--no-wait", "-o", "json", "--root", service)
    assert made.code == exits.OK, made.err
    deployment_id = made.json["item"]["deploymentId"]
    client = session.open_session(service).client("greengrassv2")
    job = client.get_deployment(deploymentId=deployment_id)["iotJobId"]
    detail = {"SUCCEEDED": "SUCCESSFUL", "FAILED": "FAILED_ROLLBACK_COMPLETE"}[status]
    details = {"detailed-deployment-status": detail}
    if status == "FAILED":
        details["deployment-failure-cause"] = "it broke\non purpose"
    for word in ("IN_PROGRESS", status):
        update = {"status": word, "statusDetails": details if word == status else {}}
        device.publish(jobs.update(device.thing, job), update)
        device.hear("/update/accepted")
    return marram.run("watch", deployment_id, "--root", service)


def test_listener_when_its_policy_allows_a_topic_then_it_hears_it_and_nothing_else(
    service: Path, tmp_path: Path, name: str
) -> None:
    to = tmp_path / "listener"
    made = marram.run("operator", "certificate", name, "--topic", f"{name}/#", "--to", to, "--root", service)
    files = devices.register(service, f"t-{name}", name)

    assert made.code == exits.OK, made.err
    with listen.connect(to) as listener, _connected(service, f"t-{name}", files) as device:
        listener.subscribe(f"{name}/+/alarms")
        with pytest.raises(exits.Failure, match="policy does not allow it"):
            listener.subscribe("other/#")
        device.publish(f"other/{name}", {"heard": False})
        device.publish(f"{name}/a/alarms", {"heard": True})
        message = listener.heard.get(timeout=20)

    assert (message.topic, json.loads(message.payload)) == (f"{name}/a/alarms", {"heard": True})
    assert stat.S_IMODE((to / "operator.key").stat().st_mode) == 0o600


def test_listen_when_nothing_comes_in_time_then_the_code_is_4(service: Path, tmp_path: Path, name: str) -> None:
    to = tmp_path / "listener"
    marram.run("operator", "certificate", name, "--topic", f"{name}/#", "--to", to, "--root", service)

    shown = marram.run("listen", f"{name}/#", "--certificate", to, "-n", "1", "--timeout", "0.2")

    assert shown.code == exits.TIMED_OUT


def test_get_devices_when_one_is_in_safe_mode_then_its_mode_and_reason_until_it_works_again(
    service: Path, name: str
) -> None:
    files = devices.register(service, f"t-{name}", name)
    told = {"mode": "SAFE_MODE", "reason": "the way back failed, too"}
    with _connected(service, f"t-{name}", files) as device:
        _report(device, 1, {"marram": told})
        broken = _listed(service, device.thing, lambda one: one["mode"] == "SAFE_MODE")
        table = marram.run("get", "devices", "--root", service)
        _report(device, 2, {})
        working = _listed(service, device.thing, lambda one: not one["mode"])

    assert broken["reason"] == told["reason"]
    assert "MODE" in table.out
    assert "SAFE_MODE" in table.out
    assert working["reason"] == ""


def _report(device: devices.Device, number: int, more: dict[str, object]) -> None:
    """A fleet status message as a device sends it."""
    message = {
        "ggcVersion": "2.15.0",
        "platform": "linux",
        "architecture": "amd64",
        "runtime": "marram",
        "thing": device.thing,
        "overallDeviceStatus": "HEALTHY",
        "sequenceNumber": number,
        "timestamp": time.time_ns() // 1_000_000,
        "messageType": "COMPLETE",
        "trigger": "NUCLEUS_LAUNCH",
        "components": [],
        **more,
    }
    device.publish(f"$aws/things/{device.thing}/greengrassv2/health/json", message)


def _listed(service: Path, thing: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The device's row of `get devices` once it is as wanted."""
    end = time.monotonic() + 20
    while True:
        rows = marram.run("get", "devices", "-o", "json", "--root", service).json["items"]
        found: dict[str, Any] = next((row for row in rows if row["coreDeviceThingName"] == thing), {})
        if found and wanted(found):
            return found
        assert time.monotonic() < end, rows
