"""`marram nucleus install`: files, modes and unit; the plain-shell service with the real daemon; sd_notify."""

from __future__ import annotations

import configparser
import os
import signal
import socket
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from nucleus.cli import nucleus_install
from nucleus.core import release
from tests.cli import marram
from tools import system as systems

WITHIN_S = 30


def test_install_when_systemd_then_unit_loader_and_folders_as_specified(tmp_path: Path) -> None:
    root, units = tmp_path / "device root", tmp_path / "units"

    done = marram.run(
        "nucleus", "install", "--root", root, "--init", "systemd", "--unit-directory", units, "--no-start"
    )

    assert done.code == 0, done.err
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have cases
    unit.read(units / "marram-nucleus.service")
    service = dict(unit["Service"])
    assert service["ExecStart"] == f'"{root}/bin/loader"'
    wanted = {"Type": "notify", "NotifyAccess": "all", "KillMode": "mixed", "Restart": "on-failure"}
    assert wanted.items() <= service.items()
    assert int(service["WatchdogSec"]) > 0
    assert "systemctl enable marram-nucleus" in done.out
    modes = {
        name: stat.S_IMODE((root / name).stat().st_mode) for name in (*nucleus_install.PRIVATE, *nucleus_install.OPEN)
    }
    assert modes == dict.fromkeys(nucleus_install.PRIVATE, 0o700) | dict.fromkeys(nucleus_install.OPEN, 0o755)
    assert stat.S_IMODE((root / "config.yaml").stat().st_mode) == 0o600
    assert os.access(root / "bin" / "loader", os.X_OK)
    assert (root / "alts" / "current").readlink() == Path("init")


def test_install_when_a_default_user_is_given_then_it_is_in_the_configuration_beside_the_rest(tmp_path: Path) -> None:
    given = tmp_path / "given.yaml"
    given.write_text("system: {thingName: kept}\n")
    root = tmp_path / "root"
    common = ("nucleus", "install", "--root", root, "--init", "shell", "--no-start", "--config", given)

    done = marram.run(*common, "--component-default-user", f"{os.getuid()}:{os.getgid()}")
    refused = marram.run(*common, "--component-default-user", "nobody-of-this-name:x")

    assert done.code == 0, done.err
    found = yaml.safe_load((root / "config.yaml").read_text())
    nucleus = found["services"]["aws.greengrass.Nucleus"]["configuration"]
    assert nucleus["runWithDefault"] == {"posixUser": f"{os.getuid()}:{os.getgid()}"}
    assert refused.code != 0
    assert "nobody-of-this-name" in refused.err


def test_install_when_again_then_the_configuration_stays(tmp_path: Path) -> None:
    arguments = ("nucleus", "install", "--root", tmp_path, "--init", "shell", "--no-start")
    marram.run(*arguments)
    (tmp_path / "config.yaml").write_text("system: {thingName: kept}\n")

    marram.run(*arguments)

    assert "kept" in (tmp_path / "config.yaml").read_text()


def test_uninstall_when_nothing_is_installed_then_it_says_so(tmp_path: Path) -> None:
    done = marram.run("nucleus", "uninstall", "--root", tmp_path, "--unit-directory", tmp_path)

    assert done.code == 1
    assert "cannot uninstall" in done.err


def test_shell_service_when_started_and_removed_then_the_nucleus_ran_and_ended(tmp_path: Path) -> None:
    root = tmp_path / "root"
    service = root / "bin" / "service"
    marram.run("nucleus", "install", "--root", root, "--init", "shell", "--no-start")
    subprocess.run([service, "start"], check=True, timeout=WITHIN_S)
    try:
        systems.wait_for((root / "ipc.socket").exists, "the nucleus to listen", WITHIN_S)
        shown = subprocess.run([service, "status"], capture_output=True, text=True, timeout=WITHIN_S, check=False)
    finally:
        done = marram.run("nucleus", "uninstall", "--root", root, "--unit-directory", tmp_path)
    after = "nucleus.stopped" in (root / "logs" / "greengrass.log").read_text()

    assert shown.returncode == 0
    assert done.code == 0
    assert after
    assert not service.exists()
    assert (root / "config.yaml").exists()


def test_notify_when_the_daemon_runs_then_ready_watchdog_and_stopping_arrive(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WITHIN_S)
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}
        daemon = subprocess.Popen([sys.executable, "-m", "nucleus", "--root", tmp_path], env=os.environ | told)
        try:
            heard: list[str] = []
            while heard.count("WATCHDOG=1") < 3 or "READY=1" not in heard:
                heard.append(manager.recv(100).decode())
            daemon.send_signal(signal.SIGTERM)
            while heard[-1] != "STOPPING=1":
                heard.append(manager.recv(100).decode())
            assert daemon.wait(WITHIN_S) == 0
        finally:
            daemon.kill()


def test_selftest_when_a_certificate_is_damaged_then_it_fails_and_says_which(tmp_path: Path) -> None:
    for name in ("device.pem", "device.key", "ca.pem"):
        (tmp_path / name).write_text("no PEM")
    (tmp_path / "config.yaml").write_text(
        "system: {thingName: t, certificateFilePath: device.pem, privateKeyPath: device.key, rootCaPath: ca.pem}\n"
        "services: {aws.greengrass.Nucleus: {configuration: {iotDataEndpoint: localhost}}}\n"
    )

    done = marram.run("selftest", "--root", tmp_path)

    assert done.code == 1
    assert "device.pem" in done.err


@pytest.mark.parametrize("damage", [b"", b"torn"])
def test_selftest_when_the_root_is_in_use_then_nothing_is_written(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "config.yaml").write_text("{}\n")
    (tmp_path / "config").mkdir()
    journal = tmp_path / "config" / "configuration.journal"
    journal.write_bytes(damage)

    done = marram.run("selftest", "--root", tmp_path)

    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == release.VERSION
    assert journal.read_bytes() == damage
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config", "config.yaml"]


def test_release_when_read_then_it_is_the_project_s_version() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())

    assert project["project"]["version"] == release.VERSION
