"""Examines a device's root, certificates, network and machine; changes nothing. Works with and without a running nucleus."""

from __future__ import annotations

import json
import os
import pwd
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from nucleus import settings
from nucleus.core import certificate, errors, findings, run_as
from nucleus.core.findings import BAD, GOOD, WARNING, Finding
from nucleus.host import places, reach
from nucleus.ipc import client

CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "cpu", "freezer")
PRIVATE = ("config", "deployments", "logs", "run", "secrets", "packages/recipes")  # 0700, spec/nucleus.md 9.1
SHARED = ("", "packages", "packages/artifacts", "packages/artifacts-unarchived", "work", "cli_ipc_info")  # 0755


def examine(root: Path, *, cgroups: Path = CGROUPS, offline: bool = False) -> Iterator[Finding]:
    """Every finding, good ones included, as they are made; `offline` leaves the endpoints out."""
    if not root.is_dir():
        yield Finding(
            "ROOT_MISSING", BAD, f"{root} is no folder", "name the device's root, or make one (marram device create)"
        )
        return
    now = time.time()
    yield findings.clock(now)
    yield _disk(root)
    yield from _permissions(root)
    yield _running(root)
    yield _cgroups(cgroups)
    try:
        found = settings.read(root / settings.FILE, root)
    except errors.NucleusError as error:
        yield Finding("CONFIGURATION", BAD, error.detail, f"correct {root / settings.FILE} or the file it names")
        return
    yield Finding("CONFIGURATION", GOOD, f"{root / settings.FILE} can be used")
    yield _socket(root, found.socket)
    yield _user(found)
    if found.cloud is None:
        yield Finding("CLOUD", GOOD, "no cloud is set: this device works for itself")
        return
    yield from _cloud(found.cloud, now, offline=offline)


# ---- the machine ---------------------------------------------------------------------------------------------------


def _disk(root: Path) -> Finding:
    if not os.access(root, os.W_OK):
        owner = f"run it as the owner of {root}, or chown the folder"
        return Finding("ROOT_NOT_WRITABLE", BAD, f"{root} cannot be written by user {os.getuid()}", owner)
    found = os.statvfs(root)
    return findings.disk(str(root), found.f_bavail * found.f_frsize, found.f_favail if found.f_files else -1)


def _permissions(root: Path) -> Iterator[Finding]:
    expected = [(root / name, 0o700, False) for name in PRIVATE] + [(root / name, 0o755, False) for name in SHARED]
    expected += [(path, 0o600, True) for path in (root / "cli_ipc_info").glob("user-*")]
    expected += [(path, 0o644, False) for path in (root / settings.FILE,)]
    wrong = [
        found
        for path, most, secret in expected
        if path.exists() and (found := findings.mode(str(path), path.stat().st_mode, most, secret=secret))
    ]
    yield from wrong or [Finding("PERMISSIONS", GOOD, "folders and tokens are for the right users only")]


def _running(root: Path) -> Finding:
    """Shakes hands over the IPC, as every verb of this device does."""
    start = f"marram nucleus run --root {root}, or marram nucleus install"
    token = places.Places(root).cli_tokens / f"user-{os.getuid()}"
    try:
        facts = json.loads(token.read_bytes())
        with client.Client(socket_path=facts["domain_socket_path"], token=facts["cli_auth_token"], timeout_s=5.0):
            return Finding("NUCLEUS", GOOD, "the nucleus runs and answers")
    except FileNotFoundError:
        return Finding("NUCLEUS_NOT_RUNNING", WARNING, f"no nucleus has run here for user {os.getuid()}", start)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Finding("NUCLEUS_TOKEN", BAD, f"{token} cannot be used: {error}", "restart the nucleus")
    except client.IPCError as error:
        return Finding("NUCLEUS_NOT_RUNNING", WARNING, f"the nucleus does not answer: {error.message}", start)


def _socket(root: Path, moved: str) -> Finding:
    path = moved or str(places.Places(root).socket)
    size, limit = len(os.fsencode(path)), places.SOCKET_PATH_LIMIT
    if size <= limit:
        return Finding("SOCKET_PATH", GOOD, f"the socket's path has {size} of at most {limit} bytes")
    told = f"the socket's path has {size} bytes, more than {limit}: components reach it only by a relative path"
    return Finding("SOCKET_PATH_LONG", WARNING, told, "use a shorter root, or set system.ipcSocketPath")


def _cgroups(root: Path) -> Finding:
    """By controller files, not by making groups; version 2 has no controller file for the freezer."""
    version_2 = root / "cgroup.controllers"
    if version_2.exists():
        offered = {*version_2.read_text().split(), "freezer"}
        folders = [root]
    else:
        folders = [root / name for name in CONTROLLERS if (root / name / "cgroup.procs").exists()]
        offered = {folder.name for folder in folders}
    missing = [name for name in CONTROLLERS if name not in offered]
    closed = [str(folder) for folder in folders if not os.access(folder, os.W_OK)]
    told = f"cgroups version {2 if version_2.exists() else 1} in {root}"
    fix = "run the nucleus as root, or delegate a group to it (systemd: Delegate=yes); without it limits and pause fail"
    if missing:
        return Finding("CGROUPS_MISSING", WARNING, f"{told} offer no {', '.join(missing)}", fix)
    if closed:
        return Finding("CGROUPS_CLOSED", WARNING, f"{told} may not be written: {', '.join(closed)}", fix)
    return Finding("CGROUPS", GOOD, f"{told} offer memory, cpu and freezer")


def _user(found: settings.Settings) -> Finding:
    default = run_as.defaults(found.nucleus, found.fallback_user).posix_user
    name = default.partition(":")[0]
    if not name and os.getuid() == 0:
        told = "the nucleus runs as root and no default user is set: components without a user of their own cannot run"
        return Finding("DEFAULT_USER_MISSING", WARNING, told, "set runWithDefault.posixUser of aws.greengrass.Nucleus")
    if name and not name.isdigit() and not _exists(name):
        return Finding("DEFAULT_USER_UNKNOWN", BAD, f"there is no user {name}", f"useradd --system {name}")
    return Finding("DEFAULT_USER", GOOD, f"components run as {name or 'the user of the nucleus'} by default")


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


# ---- the cloud -----------------------------------------------------------------------------------------------------


def _cloud(cloud: settings.Cloud, now: float, *, offline: bool) -> Iterator[Finding]:
    yield _expiry("CERTIFICATE", "the device certificate", cloud.certificate, now)
    yield _expiry("AUTHORITY", "the authority's certificate", cloud.root_ca, now)
    key = findings.mode(str(cloud.private_key), cloud.private_key.stat().st_mode, 0o600, secret=True)
    yield key or Finding("PRIVATE_KEY", GOOD, "the private key is readable by its owner only")
    try:
        tls = reach.context(cloud.certificate, cloud.private_key, cloud.root_ca)
    except OSError as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        told = f"{cloud.certificate}, {cloud.private_key} and {cloud.root_ca} cannot be used together: {reason}"
        yield Finding("CERTIFICATE_UNUSABLE", BAD, told, "give this device a new certificate (marram device create)")
        return
    if not offline:
        yield from _endpoints(cloud, tls, now)


def _endpoints(cloud: settings.Cloud, tls: ssl.SSLContext, now: float) -> Iterator[Finding]:
    groups = f"{cloud.data_plane_url}/greengrass/v2/coreDevices/{quote(cloud.thing)}/thingGroups"
    where = (("MQTT", f"mqtts://{cloud.mqtt_host}:{cloud.mqtt_port}"), ("DATA_PLANE", groups))
    for name, url in (*where, ("CREDENTIALS", cloud.credentials_url)):
        if url:
            yield from _endpoint(name, url, cloud.thing, tls, now)


def _endpoint(name: str, url: str, thing: str, tls: ssl.SSLContext, now: float) -> Iterator[Finding]:
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port or 443
    try:
        theirs = reach.handshake(host, port, tls, path=parts.path, thing=thing)
    except reach.Unreachable as error:
        yield Finding(f"{name}_{error.code}", BAD, str(error), error.fix)
        return
    yield Finding(name, GOOD, f"{host}:{port} takes this device's certificate")
    if theirs:
        yield findings.clock_against(host, theirs, now)


def _expiry(code: str, what: str, path: Path, now: float) -> Finding:
    try:
        return findings.expiry(code, what, str(path), certificate.validity(path.read_text("ascii", "replace")), now)
    except (OSError, ValueError) as error:
        fix = "give this device new files (marram device create)"
        return Finding(f"{code}_UNREADABLE", BAD, f"{what} {path} cannot be read: {error}", fix)
