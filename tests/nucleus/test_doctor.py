"""The doctor on real files and real TLS servers of the loopback."""

from __future__ import annotations

import contextlib
import getpass
import socket
import ssl
import threading
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud.store import pki
from nucleus import doctor
from nucleus.core import findings


class Site:
    """A device's root and an authority; `write` makes its configuration."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "device"
        self.service = folder / "service"
        for one in (self.root, self.service):
            one.mkdir()
        self.authority = pki.Authority.create(self.service)
        self.authority.issue_server(["localhost"])
        self.issue()
        (self.root / "ca.pem").write_text(self.authority.pem)

    def issue(self, lifetime_s: int = 400 * 86_400) -> None:
        made = self.authority.issue_device(lifetime_s=lifetime_s)
        (self.root / "device.pem").write_text(made.pem)
        (self.root / "device.key").touch(mode=0o600)
        (self.root / "device.key").write_text(made.private_key)

    def write(self, mqtt: int, data_plane: int) -> None:
        system = {
            "thingName": "t1",
            "certificateFilePath": "device.pem",
            "privateKeyPath": "device.key",
            "rootCaPath": "ca.pem",
        }
        values: dict[str, Any] = {
            "iotDataEndpoint": "localhost",
            "greengrassDataPlaneEndpoint": f"localhost:{data_plane}",
            "mqtt": {"port": mqtt},
            "runWithDefault": {"posixUser": getpass.getuser()},
        }
        services = {"aws.greengrass.Nucleus": {"configuration": values}}
        (self.root / "config.yaml").write_text(yaml.safe_dump({"system": system, "services": services}))

    @contextlib.contextmanager
    def serving(self, answer: bytes, authority: str = "") -> Iterator[int]:
        """A TLS server that demands certificates and answers each client once; an empty answer waits for its end."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self.service / "server.pem", self.service / "server.key")
        tls.load_verify_locations(cadata=authority or self.authority.pem)
        tls.verify_mode = ssl.CERT_REQUIRED
        listener = socket.create_server(("localhost", 0))

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = listener.accept()
                    with contextlib.suppress(OSError), plain, tls.wrap_socket(plain, server_side=True) as secure:
                        secure.recv(4096)
                        secure.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(10)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _codes(site: Site, **more: Any) -> dict[str, str]:
    return {one.code: one.level for one in doctor.examine(site.root, **more)}


def _answer(at: float | None = None, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nDate: {formatdate(at, usegmt=True)}\r\n\r\n".encode()


def test_examine_when_everything_is_right_then_endpoints_certificates_and_clock_are_good(site: Site) -> None:
    with site.serving(b"") as mqtt, site.serving(_answer()) as plane:
        site.write(mqtt, plane)

        found = _codes(site)

    good = {
        "MQTT",
        "DATA_PLANE",
        "CLOCK_AGREES",
        "CERTIFICATE",
        "AUTHORITY",
        "PRIVATE_KEY",
        "CONFIGURATION",
        "PERMISSIONS",
        "DISK",
    }
    assert good <= {code for code, level in found.items() if level == findings.GOOD}
    assert findings.BAD not in found.values()


def test_examine_when_the_service_trusts_another_authority_then_the_certificate_is_refused(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = pki.Authority.create(tmp_path / "other").pem
    with site.serving(b"", other) as mqtt, site.serving(_answer(), other) as plane:
        site.write(mqtt, plane)

        found = _codes(site)

    assert found["MQTT_CERTIFICATE_REFUSED"] == findings.BAD
    assert found["DATA_PLANE_CERTIFICATE_REFUSED"] == findings.BAD


def test_examine_when_the_device_trusts_another_authority_then_the_server_is_untrusted(
    site: Site, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    (site.root / "ca.pem").write_text(pki.Authority.create(tmp_path / "other").pem)
    with site.serving(b"") as mqtt, site.serving(_answer()) as plane:
        site.write(mqtt, plane)

        found = _codes(site)

    assert found["MQTT_UNTRUSTED"] == found["DATA_PLANE_UNTRUSTED"] == findings.BAD


def test_examine_when_nobody_listens_or_speaks_http_or_the_clock_is_off_then_each_is_told(site: Site) -> None:
    with socket.create_server(("localhost", 0)) as free:
        closed = free.getsockname()[1]
    with site.serving(b"220 mail\r\n") as plane:
        site.write(closed, plane)
        found = _codes(site)
    with site.serving(_answer(at=1_000_000_000)) as plane:
        site.write(closed, plane)
        later = _codes(site)
    with site.serving(_answer(status="403 Forbidden")) as plane:
        site.write(closed, plane)
        forbidden = _codes(site)

    assert found["MQTT_REFUSED"] == found["DATA_PLANE_BROKEN"] == findings.BAD
    assert later["CLOCK_SKEWED"] == findings.BAD
    assert forbidden["DATA_PLANE_FORBIDDEN"] == findings.BAD


def test_examine_when_files_are_wrong_then_each_has_its_code(site: Site) -> None:
    site.write(1, 1)
    site.issue(lifetime_s=86_400)
    (site.root / "device.key").chmod(0o644)
    soon = _codes(site, offline=True)
    (site.root / "device.key").write_text(site.authority.issue_device().private_key)
    mismatched = _codes(site, offline=True)
    (site.root / "device.pem").write_text("no certificate")
    unreadable = _codes(site, offline=True)
    (site.root / "device.pem").unlink()
    gone = _codes(site, offline=True)

    assert soon["CERTIFICATE_EXPIRES_SOON"] == findings.WARNING
    assert soon["PERMISSIONS"] == findings.BAD
    assert mismatched["CERTIFICATE_UNUSABLE"] == findings.BAD
    assert unreadable["CERTIFICATE_UNREADABLE"] == findings.BAD
    assert gone["CONFIGURATION"] == findings.BAD


def test_examine_when_the_machine_lacks_something_then_each_has_its_code(site: Site, tmp_path: Path) -> None:
    values = {"runWithDefault": {"posixUser": "nobody_of_this_name"}}
    services = {"aws.greengrass.Nucleus": {"configuration": values}}
    system = {"ipcSocketPath": f"/tmp/{'long' * 40}/ipc.socket"}
    (site.root / "config.yaml").write_text(yaml.safe_dump({"system": system, "services": services}))
    (site.root / "config").mkdir(mode=0o755)

    found = _codes(site, cgroups=tmp_path)

    assert found["DEFAULT_USER_UNKNOWN"] == findings.BAD
    for code in ("SOCKET_PATH_LONG", "CGROUPS_MISSING", "NUCLEUS_NOT_RUNNING", "PERMISSIONS"):
        assert found[code] == findings.WARNING
    assert found["CLOUD"] == findings.GOOD


def test_examine_when_cgroups_are_of_version_2_then_controller_files_decide(site: Site, tmp_path: Path) -> None:
    controllers = tmp_path / "cgroup.controllers"
    controllers.write_text("cpuset cpu io memory\n")
    enough = _codes(site, cgroups=tmp_path)
    controllers.write_text("cpuset io memory\n")

    assert enough["CGROUPS"] == findings.GOOD
    assert _codes(site, cgroups=tmp_path)["CGROUPS_MISSING"] == findings.WARNING


def test_examine_when_there_is_no_root_then_that_is_all(tmp_path: Path) -> None:
    assert [one.code for one in doctor.examine(tmp_path / "none")] == ["ROOT_MISSING"]
