"""Captures of Edge Manager's door: kept on Disk, sent from there later, or on their way to the Cloud; settings and life.

    capture_data_destination    Disk: a record is on disk when it is acknowledged, and saved; at captureDiskBytes the oldest go.
                                Cloud: it is on disk when it is acknowledged, and saved when it is in S3; nothing goes before
    capture_data_push_period_seconds, capture_data_batch_size    Cloud: sent so often, or at once when so many came
    capture_data_periodic_upload, ..._period_seconds             Disk: sent so often, and removed here when it is in S3

in the bucket `provider_s3_bucket_name`, under `<folder_prefix>/<fleet>/<model>/YYYY/MM/DD/HH/`, by agent_upload.py within its
day's budget. S3 is where the agent's `captureUpload` says (endpoint), the region `core_region` or that one's. Credentials come
from the nucleus, or by the certificate in `provider_aws_cert_file`, `..._cert_pk_file`, `..._ca_cert_file` from the URL
`provider_aws_iot_cred_endpoint` (https://HOST/role-aliases/ALIAS/credentials). `{thing}` in the prefix is the thing whose
credentials these are: `core_iot_thing_name`, else the core device or, with a certificate, `core_device_name`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import agent_capture
import agent_capture_store
import agent_credentials
import agent_edge_settings
import agent_s3
import agent_settings
import agent_upload
import agent_upload_state

NO_CLOUD = "FAILED_PRECONDITION"
FIRST_TRY_S = 3.0  # so long after the start captures wait to learn whether there is a link, later never
_LAST_S = 2.0
_MIB = 1024 * 1024
_CORE, _PROVIDER = agent_edge_settings.CORE, agent_edge_settings.PROVIDER
_PERIOD_S = 8  # Edge Manager's defaults (spec ml.md 1.6)
_PUSH_S = 4
_AWS = ("aws_cert_file", "aws_cert_pk_file", "aws_iot_cred_endpoint")


class Captures:
    """The door's store, and what is sent of it; `source` None sends nothing, `why_not` says why. Raises OSError."""

    def __init__(self, where: agent_capture_store.Where, source: agent_upload.Source | None, why_not: str = "") -> None:
        self.root = where.root
        self._stack = contextlib.ExitStack()
        store = agent_capture_store.open_store(where, self._stack)
        end = time.monotonic() + _LAST_S
        while store is None and time.monotonic() < end:
            threading.Event().wait(0.1)  # an agent that ends still writes what came last
            store = agent_capture_store.open_store(where, self._stack)
        if store is None:
            raise agent_edge_settings.SettingsError(
                f"edgeManager: another store of captures is open in {where.folder}; see {_CORE}capture_data_disk_path"
            )
        self.store = store
        self._cloud = where.transit
        self._batch = where.bounds.batch
        self._source = source and dataclasses.replace(source, store=lambda: store)
        self._why_not = why_not
        self._uploads: agent_upload.Uploads | None = None
        self._started = threading.Event()
        self._tried_at = 0.0  # monotonic: by then the first try should be over
        self._taken = itertools.count(1)

    def start_uploads(
        self, budget: agent_upload_state.Budget, clock: Callable[[], float] = time.time
    ) -> agent_upload.Uploads | None:
        """The service that sends, which the caller ends; None if nothing is sent. `clock` says which day it is."""
        if self._source is not None:
            self._uploads = agent_upload.Uploads(self._source, budget, clock)
            self._tried_at = time.monotonic() + FIRST_TRY_S
        self._started.set()
        return self._uploads

    def submit(self, record: agent_capture.Record) -> None:
        """Returns when the record is safe on disk; raises agent_capture.CaptureError, FAILED_PRECONDITION without a link."""
        if self._cloud and self.store.status(record.identity) in (None, agent_capture.FAILED):
            why = self._no_cloud()
            if why:
                raise agent_capture.CaptureError(NO_CLOUD, f"no network for the Cloud destination: {why}")
        self.store.submit(record)
        if self._cloud and self._uploads is not None and next(self._taken) % self._batch == 0:
            self._uploads.hurry()

    def status(self, identity: str) -> str | None:
        """agent_capture.FAILED, SAVED (in the cloud, for that destination), UNDER_WAY; None for an id nobody knows."""
        found = self.store.status(identity)
        if found == agent_capture.UNDER_WAY and self._uploads is not None and self._uploads.no_link(0):
            self._uploads.hurry()  # somebody waits for it
        return found

    def close(self) -> None:
        """Takes nothing more; what was captured is written."""
        self._stack.close()

    def _no_cloud(self) -> str:
        self._started.wait(FIRST_TRY_S)
        if self._uploads is None:
            return self._why_not or "the uploads have not begun"
        why = self._uploads.no_link(max(self._tried_at - time.monotonic(), 0))
        if why:
            self._uploads.hurry()
        return why


def open_captures(settings: agent_edge_settings.Settings, upload: Mapping[str, Any]) -> Captures:
    """What the settings ask for; `upload` is the agent's section `captureUpload`. Raises OSError."""
    destination = settings.text(f"{_CORE}capture_data_destination", "Disk")
    if destination not in ("Disk", "Cloud"):
        why = f"{_CORE}capture_data_destination is {destination!r}: use Disk or Cloud"
        raise agent_edge_settings.SettingsError(f"edgeManager: {why}")
    cloud = destination == "Cloud"
    where = dataclasses.replace(_where(settings), transit=cloud)
    every_s = _every_s(settings, cloud=cloud)
    if not every_s:
        return _opened(where, None)
    where = dataclasses.replace(where, remembers=True)
    bucket = settings.text(f"{_PROVIDER}s3_bucket_name", "")
    if not bucket:
        why = f"{_PROVIDER}s3_bucket_name is not set"
        print(f"edge manager: captures are not uploaded: {why}", flush=True)
        return _opened(where, None, why)
    print(f"edge manager: captures go to s3://{bucket}/{where.below}/ every {every_s} s", flush=True)
    return _opened(where, _source(settings, upload, where, every_s))


def _opened(where: agent_capture_store.Where, source: agent_upload.Source | None, why_not: str = "") -> Captures:
    made = Captures(where, source, why_not)
    if made.store.repaired:
        print(f"captures: {made.store.repaired}", flush=True)
    return made


def _where(settings: agent_edge_settings.Settings) -> agent_capture_store.Where:
    device = settings.text(f"{_CORE}device_name", os.environ.get("AWS_IOT_THING_NAME", "") or socket.gethostname())
    prefix = settings.text(f"{_CORE}folder_prefix", "").replace("{thing}", _thing(settings, device))
    parts = [part for part in prefix.split("/") if part]
    parts.append(settings.text(f"{_CORE}device_fleet_name", "default"))
    for part in parts:
        if not agent_capture_store.PART.fullmatch(part):
            raise agent_edge_settings.SettingsError(
                f"edgeManager: {part!r} cannot be part of a path; see folder_prefix and device_fleet_name"
            )
    buffer = settings.number(f"{_CORE}capture_data_buffer_size", 64)
    batch = settings.number(f"{_CORE}capture_data_batch_size", max(buffer // 2, 1))
    try:
        bounds = agent_capture.Bounds(buffer, batch)
    except ValueError as error:
        raise agent_edge_settings.SettingsError(f"edgeManager: {error}") from error
    limit = agent_capture_store.EMBED_BYTES
    return agent_capture_store.Where(
        Path(settings.text(f"{_CORE}capture_data_disk_path", "captures")),
        "/".join(parts),
        device,
        settings.number("captureDiskBytes", 256 * _MIB),
        min(settings.number(f"{_CORE}capture_data_base64_embed_limit", limit), limit),
        bounds,
    )


def _every_s(settings: agent_edge_settings.Settings, *, cloud: bool) -> int:
    """Seconds between two uploads, 0 for none at all."""
    if not cloud and not settings.truth(f"{_CORE}capture_data_periodic_upload"):
        return 0
    key, usual = ("push_period_seconds", _PUSH_S) if cloud else ("periodic_upload_period_seconds", _PERIOD_S)
    every_s = settings.number(f"{_CORE}capture_data_{key}", usual)
    if not every_s:
        raise agent_edge_settings.SettingsError(f"edgeManager: {_CORE}capture_data_{key} must be at least 1")
    return every_s


def _source(
    settings: agent_edge_settings.Settings,
    upload: Mapping[str, Any],
    where: agent_capture_store.Where,
    every_s: int,
) -> agent_upload.Source:
    bucket = settings.text(f"{_PROVIDER}s3_bucket_name", "")
    if "sagemaker" not in bucket:
        why = f"{_PROVIDER}s3_bucket_name is {bucket!r}, it must contain sagemaker"
        raise agent_edge_settings.SettingsError(f"edgeManager: {why}")
    region = settings.text(f"{_CORE}region", "") or upload.get("region", "")
    try:
        destination = agent_s3.read({"bucket": bucket, "endpoint": upload.get("endpoint", ""), "region": region})
    except agent_settings.SettingsError as error:
        raise agent_edge_settings.SettingsError(f"edgeManager: {error}") from error
    assert destination is not None
    return agent_upload.Source(
        destination, where.folder, where.device, lambda: None, every_s, _credentials(settings, where.device)
    )


def _credentials(settings: agent_edge_settings.Settings, device: str) -> agent_credentials.Source:
    certificate, key, url = (settings.text(f"{_PROVIDER}{name}", "") for name in _AWS)
    if not (certificate or key or url):
        return agent_credentials.exchanged
    parts = urllib.parse.urlsplit(url)
    if not (certificate and key) or parts.scheme != "https" or not parts.hostname or len(parts.path) < 2:
        why = (
            f"of {', '.join(_PROVIDER + name for name in _AWS)} all are needed, the last as https://HOST/PATH, or none"
        )
        raise agent_edge_settings.SettingsError(f"edgeManager: {why}")
    authority = settings.text(f"{_PROVIDER}aws_ca_cert_file", "")
    known = agent_credentials.Certificate(url, _thing(settings, device), certificate, key, authority)
    return functools.partial(agent_credentials.certified, known)


def _thing(settings: agent_edge_settings.Settings, device: str) -> str:
    """Whose credentials are used."""
    by_certificate = bool(settings.text(f"{_PROVIDER}aws_cert_file", ""))
    core = "" if by_certificate else os.environ.get("AWS_IOT_THING_NAME", "")
    return settings.text(f"{_CORE}iot_thing_name", core or device)
