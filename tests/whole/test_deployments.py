"""Deployments through the whole system: plain boto3, the service, the broker, a nucleus, real processes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import botocore.exceptions
import psutil
import pytest

from tools import system as systems

pytestmark = pytest.mark.whole
STAYS = "echo up; exec sleep 100000"


def recipe(name: str, version: str, script: str, *artifacts: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": name,
        "ComponentVersion": version,
        "Manifests": [{"Lifecycle": {"Run": script}, "Artifacts": list(artifacts)}],
        **more,
    }


def target(thing: str) -> str:
    return f"arn:aws:iot:us-east-1:123456789012:thinggroup/{thing}"


def processes_of(root: Path, name: str) -> list[int]:
    """Pids whose working directory is the component's."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(root / "work" / name):
                found.append(process.pid)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def test_deploy_when_artifacts_are_files_and_archives_then_both_reach_the_component(
    system: systems.System, thing: str, component: str
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("inner/data.txt", "from the archive")
    script = "cat {artifacts:path}/a.txt {artifacts:decompressedPath}/z/inner/data.txt > out.txt"
    files = {"a.txt": b"from the file, ", "z.zip": archive.getvalue()}
    uris = ({"Uri": "s3://artifacts/a.txt"}, {"Uri": "s3://artifacts/z.zip", "Unarchive": "ZIP"})
    system.publish(recipe(component, "1.0.0", script, *uris), files)

    ended = system.wait(thing, system.deploy(target(thing), {component: "1.0.0"}))

    assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED"
    assert (system.device(thing) / "work" / component / "out.txt").read_text() == "from the file, from the archive"


def test_deploy_when_done_then_the_cloud_knows_device_and_components(
    system: systems.System, thing: str, component: str
) -> None:
    system.publish(recipe(component, "1.0.0", STAYS))
    greengrass = system.client("greengrassv2")

    deployment = system.deploy(target(thing), {component: "1.0.0"})
    system.wait(thing, deployment)

    def listed() -> list[dict[str, Any]]:
        found = greengrass.list_installed_components(coreDeviceThingName=thing)["installedComponents"]
        return [one for one in found if one["componentName"] == component]

    systems.wait_for(lambda: bool(listed()) and listed()[0]["lifecycleState"] == "RUNNING", "the status message", 20)
    assert listed()[0]["componentVersion"] == "1.0.0"
    assert greengrass.get_core_device(coreDeviceThingName=thing)["status"] == "HEALTHY"
    assert thing in {one["coreDeviceThingName"] for one in greengrass.list_core_devices()["coreDevices"]}


def test_deploy_to_a_thing_when_carried_by_the_shadow_then_completed(
    system: systems.System, thing: str, component: str
) -> None:
    system.publish(recipe(component, "1.0.0", "true"))

    deployment = system.deploy(f"arn:aws:iot:us-east-1:123456789012:thing/{thing}", {component: "1.0.0"})

    assert system.wait(thing, deployment)["coreDeviceExecutionStatus"] in ("COMPLETED", "SUCCEEDED")


def test_deploy_when_a_version_is_not_there_then_the_failure_names_component_and_range(
    system: systems.System, thing: str, component: str
) -> None:
    needs = {"ComponentDependencies": {"com.example.Nowhere": {"VersionRequirement": "^9.0.0"}}}
    system.publish(recipe(component, "1.0.0", "true", **needs))

    ended = system.wait(thing, system.deploy(target(thing), {component: "1.0.0"}))

    assert ended["coreDeviceExecutionStatus"] == "FAILED"
    assert "com.example.Nowhere" in ended["reason"]
    assert "^9.0.0" in ended["reason"]
    assert "NO_AVAILABLE_COMPONENT_VERSION" in ended["statusDetails"]["errorStack"]


def test_deploy_when_bytes_do_not_have_the_digest_then_refused_and_named(
    system: systems.System, thing: str, component: str
) -> None:
    data = f"the bytes of {component}".encode()
    system.publish(recipe(component, "1.0.0", "true", {"Uri": f"s3://artifacts/{component}"}), {component: data})
    stored = [
        path for path in (system.cloud_root / "objects").rglob("*") if path.is_file() and path.read_bytes() == data
    ]
    assert stored
    for path in stored:
        path.chmod(0o600)
        path.write_bytes(data.replace(b"bytes", b"bites"))

    ended = system.wait(thing, system.deploy(target(thing), {component: "1.0.0"}))

    assert ended["coreDeviceExecutionStatus"] == "FAILED"
    assert "ARTIFACT_CHECKSUM_MISMATCH" in ended["statusDetails"]["errorStack"]
    assert f"{component} of {component} 1.0.0" in ended["reason"]
    assert not list((system.device(thing) / "packages" / "artifacts" / component).rglob("*.part"))


def test_deploy_when_an_archive_escapes_then_refused_and_nothing_written(
    system: systems.System, thing: str, component: str
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("../../../escaped.txt", "out")
    name = f"{component}.zip"
    system.publish(
        recipe(component, "1.0.0", "true", {"Uri": f"s3://artifacts/{name}", "Unarchive": "ZIP"}),
        {name: archive.getvalue()},
    )

    ended = system.wait(thing, system.deploy(target(thing), {component: "1.0.0"}))

    assert "IO_UNZIP_ERROR" in ended["statusDetails"]["errorStack"]
    assert "escaped.txt" in ended["reason"]
    assert not list(system.device(thing).rglob("escaped.txt"))


def test_publish_when_an_artifact_is_missing_then_refused_with_its_uri(system: systems.System, component: str) -> None:
    with pytest.raises(botocore.exceptions.ClientError, match="s3://artifacts/none-such"):
        system.publish(recipe(component, "1.0.0", "true", {"Uri": "s3://artifacts/none-such"}), {"x": b"x"})


def test_deploy_when_the_disk_is_full_then_says_so_and_the_old_version_runs_on(
    system: systems.System, component: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small file system")
    thing = f"small{component.rsplit('C', 1)[1]}"
    system.create_group(thing)
    folder = system.device(thing)
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    try:
        system.create_device(thing, thing)
        system.start_nucleus(thing)
        system.publish(recipe(component, "1.0.0", STAYS))
        system.wait(thing, system.deploy(target(thing), {component: "1.0.0"}))
        big = f"{component}.bin"
        system.publish(
            recipe(component, "1.1.0", STAYS, {"Uri": f"s3://artifacts/{big}"}), {big: os.urandom(20_000_000)}
        )

        ended = system.wait(thing, system.deploy(target(thing), {component: "1.1.0"}))

        assert "DISK_SPACE_CRITICAL" in ended["statusDetails"]["errorStack"]
        assert f"{component} 1.1.0" in ended["reason"]
        assert processes_of(folder, component)
    finally:
        if thing in system.processes:
            system.kill(thing, 15)
        subprocess.run(["umount", str(folder)], check=True)


def test_nucleus_when_killed_between_durable_and_commit_then_succeeds_with_one_process_tree(
    system: systems.System, thing: str, component: str
) -> None:
    root = system.device(thing)
    system.publish(recipe(component, "1.0.0", STAYS))
    system.publish(recipe(component, "1.1.0", STAYS))
    system.wait(thing, system.deploy(target(thing), {component: "1.0.0"}))
    (root / "fault").write_text("pause-before-activation:600")
    deployment = system.deploy(target(thing), {component: "1.1.0"})
    log = root / "logs" / "greengrass.log"
    systems.wait_for(lambda: "deployment.fault_switch" in log.read_text(), "the pause", 30)
    assert (root / "deployments" / deployment / "record.json").exists()

    system.kill(thing)
    (root / "fault").unlink()
    assert processes_of(root, component), "components outlive a killed nucleus: that is what must be cleaned up"
    system.start_nucleus(thing)
    ended = system.wait(thing, deployment)

    assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED"
    assert len(processes_of(root, component)) == 1


def test_nucleus_when_the_broker_is_gone_then_the_deployment_comes_after_it(
    system: systems.System, thing: str, component: str
) -> None:
    system.publish(recipe(component, "1.0.0", "true"))
    log = system.device(thing) / "logs" / "greengrass.log"
    systems.wait_for(lambda: log.exists() and "mqtt.connected" in log.read_text(), "the nucleus to connect", 20)
    children = psutil.Process(system.processes["cloud"].pid).children(recursive=True)
    assert children

    for child in children:
        child.kill()
    deployment = system.deploy(target(thing), {component: "1.0.0"})

    assert system.wait(thing, deployment, 90)["coreDeviceExecutionStatus"] == "SUCCEEDED"


def test_nucleus_when_its_certificate_is_foreign_then_it_says_so_and_local_work_goes_on(
    system: systems.System, component: str
) -> None:
    thing = f"foreign{component.rsplit('C', 1)[1]}"
    folder = system.create_device(thing)
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN={thing} -days 1 -keyout device.key -out device.pem"
    subprocess.run(command.split(), check=True, capture_output=True, cwd=folder)
    system.start_nucleus(thing)
    log = folder / "logs" / "greengrass.log"

    systems.wait_for(lambda: log.exists() and "mqtt.connect_failed" in log.read_text(), "the refusal in the log", 30)

    assert system.processes[thing].poll() is None
    assert (folder / "ipc.socket").exists()
    system.kill(thing, 15)


def test_resolve_when_the_digest_is_known_then_the_recipe_carries_it(system: systems.System, component: str) -> None:
    data = os.urandom(100)
    system.publish(recipe(component, "1.0.0", "true", {"Uri": f"s3://artifacts/{component}"}), {component: data})
    arn = f"arn:aws:greengrass:us-east-1:123456789012:components:{component}:versions:1.0.0"

    found = json.loads(system.client("greengrassv2").get_component(arn=arn, recipeOutputFormat="JSON")["recipe"])

    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert found["Manifests"][0]["Artifacts"][0]["Digest"] == digest


def test_deploy_when_its_configuration_is_a_megabyte_then_it_comes_whole(
    system: systems.System, thing: str, component: str
) -> None:
    """AWS refers to what does not fit into a job (LARGE_CONFIGURATION, address not public); our broker carries it."""
    system.publish(recipe(component, "1.0.0", "echo {configuration:/word} > out.txt"))
    merge = json.dumps({"large": "x" * 1_000_000, "word": "arrived"})
    wanted = {component: {"componentVersion": "1.0.0", "configurationUpdate": {"merge": merge}}}

    ended = system.wait(thing, system.deploy(target(thing), wanted))

    assert ended["coreDeviceExecutionStatus"] == "SUCCEEDED"
    assert (system.device(thing) / "work" / component / "out.txt").read_text() == "arrived\n"
    stored = (system.device(thing) / "config").rglob("*")
    assert sum(path.stat().st_size for path in stored if path.is_file()) > 1_000_000
