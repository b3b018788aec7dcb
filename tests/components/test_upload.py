"""Upload of captures to a real S3 face (our cloud's, which verifies signatures with botocore): budget, failures, resuming."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import json
import os
import random
import socket
import socketserver
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import agent_capture
import agent_capture_files
import agent_capture_store
import agent_s3
import agent_settings
import agent_sigv4
import agent_upload
import agent_upload_state
import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest

from tests.cloud.api import service as clouds
from tests.components import exchanging, parts

SEED = 20261124
BUCKET = "captures"
DAY_S = 86400.0
UPLOADER = Path(__file__).with_name("upload_writer.py")


class Scene:
    """A store of captures, a cloud with a bucket, and uploads between them."""

    def __init__(self, folder: Path, cloud: clouds.Service, exchange: exchanging.TokenExchange) -> None:
        self.where = agent_capture_store.Where(folder / "samples", "default", "crane", 1 << 22)
        self.cloud = cloud
        self.exchange = exchange
        self.endpoint = cloud.held.endpoints.api
        self.now = time.time()
        self._stack = contextlib.ExitStack()
        self.restart()

    def restart(self) -> None:
        """Closes the store and opens it again."""
        self.close()
        store = agent_capture_store.open_store(self.where, self._stack)
        assert store is not None
        self.store: agent_capture.Capture = store

    def capture(self, hours_ago: float, size: int = 10, *, files: bool = False) -> str:
        """One record of some hours ago; large ones have a file beside the line."""
        identity = str(uuid.uuid4())
        data = hashlib.sha256(identity.encode()).digest() * (200 if files else 1)
        item = agent_capture_files.Item("x", f"Tensor[uint8; {len(data)}]", data + bytes(size))
        self.store.submit(agent_capture_files.Record("a", identity, self.now - hours_ago * 3600, (item,), ()))
        return identity

    def set_clock(self, now: float) -> None:
        """Of the device and of the cloud, which refuses signatures of another time."""
        self.now = now
        self.cloud.tick_ms = int((now - time.time()) * 1000)

    @contextlib.contextmanager
    def uploading(self, bytes_per_day: int = 1 << 30, **changes: str) -> Iterator[agent_upload.Uploads]:
        given = {
            "bucket": BUCKET,
            "prefix": "things/{thing}",
            "endpoint": self.endpoint,
            "region": clouds.REGION,
            **changes,
        }
        destination = agent_s3.read(given)
        assert destination is not None
        source = agent_upload.Source(destination, self.where.folder, "crane", lambda: self.store)
        made = agent_upload.Uploads(source, agent_upload_state.Budget(bytes_per_day), lambda: self.now)
        try:
            yield made
        finally:
            made.close()

    def objects(self) -> dict[str, bytes]:
        self.cloud.tick_ms = 0  # boto3 goes by the clock of the machine
        s3 = self.cloud.client("s3")
        listed = s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {each["Key"]: s3.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read() for each in listed}

    def identities(self) -> set[str]:
        """In the cloud; every file that a line names must be there, whole."""
        objects = self.objects()
        found = {
            line["eventMetadata"]["eventId"]: (key.rpartition("/")[0], line["deviceFleetInputs"])
            for key, body in objects.items()
            if key.endswith(".jsonl")
            for line in map(json.loads, body.splitlines())
        }
        for identity, (folder, items) in found.items():
            for item in (each for each in items if "file" in each):
                assert objects[f"{folder}/{item['file']}"][:32] == hashlib.sha256(identity.encode()).digest()
        return set(found)

    def here(self) -> int:
        return sum(name.endswith(".jsonl") for _, _, names in os.walk(self.where.root) for name in names)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clouds.Service]:
    with clouds.running(tmp_path_factory.mktemp("cloud")) as running:
        yield running


@pytest.fixture
def scene(cloud: clouds.Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    s3 = cloud.client("s3")
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=BUCKET)
    for each in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=each["Key"])
    exchange = exchanging.TokenExchange(cloud.key.id, cloud.key.secret)
    for name, value in exchange.environment.items():
        monkeypatch.setenv(name, value)
    made = Scene(tmp_path, cloud, exchange)
    yield made
    made.close()
    exchange.close()
    cloud.tick_ms = 0


def until(uploads: agent_upload.Uploads, met: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    def looked() -> bool:
        uploads.look()
        return met(uploads.figures("a"))

    parts.until(looked, what)
    return uploads.figures("a")


def test_upload_when_hours_are_over_then_all_is_in_the_cloud_and_no_more_here(scene: Scene) -> None:
    sent = {scene.capture(hours, files=hours > 2) for hours in (3, 3, 2, 1)}
    open_yet = scene.capture(0)

    with scene.uploading() as uploads:
        figures = until(uploads, lambda found: found["units"] == 3, "three units to be sent")

    assert scene.identities() == sent
    assert scene.here() == 1
    assert open_yet not in sent
    assert (figures["waitingUnits"], figures["error"]) == (0, "")
    assert figures["bytes"] == figures["today"] == sum(len(body) for body in scene.objects().values())
    hour = datetime.datetime.fromtimestamp(scene.now - 3600, datetime.UTC).strftime("%Y/%m/%d/%H")
    (key,) = [key for key in scene.objects() if f"/{hour}/" in key]
    assert key.startswith(f"things/crane/default/a/{hour}/crane-")
    assert scene.exchange.asked == 1


def test_upload_when_all_was_sent_and_the_agent_restarts_within_the_hour_then_nothing_in_the_cloud_is_overwritten(
    scene: Scene,
) -> None:
    sent = set()
    for number in range(1, 4):
        sent.add(scene.capture(1))
        scene.restart()
        with scene.uploading() as uploads:
            until(uploads, lambda found: found["units"] == 1, "the unit")
        scene.restart()
        assert len(scene.identities()) == number

    assert scene.identities() == sent


def test_upload_when_the_days_budget_is_used_then_the_rest_goes_the_next_day(scene: Scene) -> None:
    scene.set_clock((scene.now // DAY_S) * DAY_S + 40_000)  # not near midnight
    for hours in (4, 3, 2, 1):
        scene.capture(hours, 2000)

    with scene.uploading(bytes_per_day=7000) as uploads:
        until(uploads, lambda found: found["units"] == 2, "two units of about 3 kB")
        until(uploads, lambda found: found["waitingUnits"] == 2, "it to stop")
        scene.set_clock(scene.now + DAY_S)
        figures = until(uploads, lambda found: found["units"] == 4, "the other two")

    assert figures["today"] <= 7000
    assert len(scene.identities()) == 4


def test_upload_when_a_file_is_larger_than_the_budget_then_sent_on_a_day_of_its_own(scene: Scene) -> None:
    scene.set_clock((scene.now // DAY_S) * DAY_S + 40_000)
    for hours in (2, 1):
        scene.capture(hours, 2000)

    with scene.uploading(bytes_per_day=100) as uploads:
        until(uploads, lambda found: found["units"] == 1 and found["waitingUnits"] == 1, "one of them")
        scene.set_clock(scene.now + DAY_S)
        until(uploads, lambda found: found["units"] == 2, "the other")


def test_upload_when_there_is_no_link_for_long_then_kept_and_sent_when_it_is_back(scene: Scene) -> None:
    sent = {scene.capture(hours) for hours in (2, 1)}
    scene.exchange.failing = True

    with scene.uploading() as uploads:
        figures = until(uploads, lambda found: bool(found["error"]), "an error")
        assert "cannot get credentials: HTTP 500" in figures["error"]
        assert (figures["today"], scene.here()) == (0, 2)
        scene.exchange.failing = False
        until(uploads, lambda found: found["units"] == 2, "both")
        said = uploads.tick()

    assert scene.identities() == sent
    assert [line.partition(":")[2][:17] for line in said] == [" not uploaded for", " uploading again"]


def test_upload_when_nobody_listens_then_nothing_of_the_budget_is_used(scene: Scene) -> None:
    scene.capture(1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens here
        with scene.uploading(endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}") as uploads:
            figures = until(uploads, lambda found: bool(found["error"]), "an error")

    assert "ConnectionRefusedError" in figures["error"]
    assert (figures["today"], figures["waitingUnits"], scene.here()) == (0, 1, 1)


def test_upload_when_the_file_of_certificates_is_missing_then_told_and_nothing_is_skipped(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.capture(1)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(scene.where.folder / "absent.pem"))

    with scene.uploading(endpoint="https://127.0.0.1:1") as uploads:
        figures = until(uploads, lambda found: bool(found["error"]), "an error")

    assert "FileNotFoundError" in figures["error"]
    assert (figures["waitingUnits"], scene.here()) == (1, 1)


def test_upload_when_the_bucket_is_not_there_then_the_code_is_told_and_nothing_is_removed(scene: Scene) -> None:
    scene.capture(1)

    with scene.uploading(bucket="another") as uploads:
        figures = until(uploads, lambda found: bool(found["error"]), "an error")

    assert "HTTP 404 NoSuchBucket" in figures["error"]
    assert scene.here() == 1


@contextlib.contextmanager
def tunnel() -> Iterator[tuple[int, list[str]]]:
    """A proxy that knows CONNECT alone: its port, and the heads of the requests it got."""
    heads: list[str] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = list(iter(self.rfile.readline, b"\r\n"))
            heads.append(b"".join(lines).decode())
            host, _, port = lines[0].split()[1].decode().rpartition(":")
            with socket.create_connection((host, int(port))) as upstream:
                self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=pump, args=(upstream, self.request))
                back.start()
                pump(self.request, upstream)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1], heads
        server.shutdown()
        thread.join()


def test_upload_when_the_environment_names_a_proxy_then_through_it_and_credentials_are_fetched_directly(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = {scene.capture(1)}
    with tunnel() as (port, heads):
        monkeypatch.setenv("http_proxy", f"http://crane:s%3Acret@127.0.0.1:{port}")
        with scene.uploading() as uploads:
            until(uploads, lambda found: found["units"] == 1, "the unit")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        scene.capture(2)
        with scene.uploading() as uploads:
            until(uploads, lambda found: found["units"] == 1, "the next")

    assert sent < scene.identities()
    (head,) = heads  # the second went directly
    assert head.startswith(f"CONNECT {scene.endpoint.removeprefix('http://')} ")
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'crane:s:cret').decode()}" in head


def test_upload_when_months_offline_then_the_newest_that_fit_are_kept_and_sent(scene: Scene) -> None:
    scene.close()
    scene.where = agent_capture_store.Where(scene.where.folder, "default", "crane", 64 * 1024)
    with contextlib.ExitStack() as stack:
        store = agent_capture_store.open_store(scene.where, stack)
        assert store is not None
        scene.store = store
        sent = [scene.capture(hours) for hours in range(100 * 24, 0, -24)]
        assert store.used_bytes() <= 64 * 1024

        with scene.uploading() as uploads:
            until(uploads, lambda found: found["units"] and not found["waitingUnits"], "all that is left")

    found = scene.identities()
    assert 3 <= len(found) < 10
    assert found == set(sent[-len(found) :])


def test_upload_when_killed_at_any_moment_then_all_arrives_once_under_the_same_keys(scene: Scene) -> None:
    chance = random.Random(SEED)
    sent = {scene.capture(hours, files=True) for hours in range(8, 0, -1) for _ in range(3)}
    scene.close()
    given = {"bucket": BUCKET, "endpoint": scene.endpoint, "region": clouds.REGION}
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, UPLOADER, scene.where.folder, json.dumps(given)],
            env={**os.environ, "PYTHONPATH": str(parts.AGENT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(chance.randrange(1, 4)):
            process.stdout.readline()  # one for each change of its figures
        threading.Event().wait(chance.random() * 0.02)
        process.kill()
        process.stdout.close()
        process.wait(20)

    with contextlib.ExitStack() as stack:
        store = agent_capture_store.open_store(scene.where, stack)
        assert store is not None
        scene.store = store
        with scene.uploading(prefix="") as uploads:
            until(uploads, lambda found: scene.here() == 0 and found["waitingUnits"] == 0, "the rest")

    assert scene.identities() == sent
    assert len(scene.objects()) == 8 + 24  # lines and files: nothing twice under another key


def test_unit_when_it_went_by_the_bound_while_it_waited_then_the_others_are_sent(scene: Scene) -> None:
    for hours in (3, 2, 1):
        scene.capture(hours, files=True)
    for path in sorted(scene.where.root.rglob("*.jsonl"))[:1]:
        path.unlink()

    with scene.uploading() as uploads:
        until(uploads, lambda found: found["units"] == 2, "the other two")

    assert len(scene.identities()) == 2


# ---- pure ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "a session/token+=="], ids=["key", "session"])
@pytest.mark.parametrize("path", ["/captures/a/b.jsonl", "/captures/sme capture/ü+~*.tensors/x"])
def test_signature_when_compared_with_botocores_then_equal(token: str, path: str) -> None:
    credentials = agent_sigv4.Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token)
    digest, now = hashlib.sha256(b"body").hexdigest(), time.time()
    headers = agent_sigv4.signed(
        "PUT", "localhost:9000", agent_sigv4.encoded(path), digest, credentials, "eu-west-1", now
    )

    request = botocore.awsrequest.AWSRequest(
        "PUT", f"http://localhost:9000{agent_sigv4.encoded(path)}", {"X-Amz-Content-SHA256": digest}, b"body"
    )
    request.context["timestamp"] = headers["x-amz-date"]
    signer = botocore.auth.S3SigV4Auth(
        botocore.credentials.Credentials(credentials.key_id, credentials.secret, token or None), "s3", "eu-west-1"
    )
    if token:
        request.headers["X-Amz-Security-Token"] = token
    request.headers["X-Amz-Date"] = headers["x-amz-date"]
    signature = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)

    assert headers["authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"bucket": "Not A Bucket"}, "no name of a bucket"),
        ({"bucket": "abc", "endpoint": "ftp://x"}, "endpoint"),
        ({"bucket": "abc", "endpoint": "http://x/path"}, "endpoint"),
        ({"bucket": 7}, "must be texts"),
        ({"bucket": "abc", "bytesPerDay": 0}, "bytesPerDay"),
    ],
    ids=str,
)
def test_settings_when_they_mean_nothing_then_refused_with_the_key(given: dict[str, Any], what: str) -> None:
    with pytest.raises(agent_settings.SettingsError, match=what):
        agent_upload.read(given)


def test_settings_when_there_is_no_bucket_then_nothing_is_uploaded() -> None:
    assert agent_upload.read({"bucket": "", "bytesPerDay": 5}) == (None, 5)


def test_destination_when_no_endpoint_is_given_then_it_is_amazons_of_the_region() -> None:
    destination = agent_s3.read({"bucket": "abc", "region": "eu-west-1"})

    assert destination is not None
    assert (destination.endpoint, destination.below) == ("https://abc.s3.eu-west-1.amazonaws.com", "")


def test_pauses_when_failures_go_on_then_longer_up_to_a_quarter_of_an_hour() -> None:
    assert [agent_upload.pause_after(failures, 1.0) for failures in (1, 2, 3, 9, 1000)] == [
        5.0,
        10.0,
        20.0,
        900.0,
        900.0,
    ]
    assert agent_upload.pause_after(1, 0.0) == 2.5


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"store": "x"}'], ids=str)
def test_state_when_it_cannot_be_read_then_the_day_counts_as_used(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "upload.json"
    path.write_bytes(torn)

    state = agent_upload_state.State.open(path)

    assert not state.allows(1, 1000, 0.0)
    assert state.allows(1, 1000, DAY_S)
    assert len(state.store) == 8
