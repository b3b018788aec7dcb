"""Captures of Edge Manager's door on their way to a real S3 face: what is acknowledged arrives, whatever is cut or killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import agent_capture
import agent_capture_files
import agent_capture_ids
import agent_capture_store
import agent_edge_captures
import agent_edge_pb2
import agent_edge_settings
import agent_s3
import agent_upload
import agent_upload_state
import grpc
import pytest

from tests.cloud.api import service as clouds
from tests.components import exchanging, parts

SEED = 20261124
BUCKET = "sagemaker-captures"
CORE, PROVIDER = "sagemaker_edge_core_", "sagemaker_edge_provider_"
KEY = re.compile(
    r"north/quay/harbour/[\w-]+/\d{4}/\d\d/\d\d/\d\d/(crane-7-\w{8}-\d{12}\.jsonl|\d{12}\.tensors/[\w.-]+)"
)
CLOUD: dict[str, Any] = {
    f"{CORE}device_name": "crane-7",
    f"{CORE}device_fleet_name": "harbour",
    f"{CORE}folder_prefix": "north/quay",
    f"{CORE}region": clouds.REGION,
    f"{CORE}capture_data_destination": "Cloud",
    f"{CORE}capture_data_push_period_seconds": "1",
    f"{PROVIDER}s3_bucket_name": BUCKET,
}
PERIODIC = {
    **CLOUD,
    f"{CORE}capture_data_destination": "Disk",
    f"{CORE}capture_data_periodic_upload": "true",
    f"{CORE}capture_data_periodic_upload_period_seconds": 1,
}
messages: Any = agent_edge_pb2


def tensor(identity: str, *, file: bool) -> bytes:
    """The bytes of a record; `file`: more than a line takes."""
    return hashlib.sha256(identity.encode()).digest() * (200 if file else 1)


class Scene:
    """A device's folder, a link to the cloud, and the door's captures between them."""

    def __init__(self, folder: Path, cloud: clouds.Service, exchange: exchanging.TokenExchange) -> None:
        self.folder = folder
        self.cloud = cloud
        self.exchange = exchange
        self.link = exchanging.Link(int(cloud.held.endpoints.api.rpartition(":")[2]))

    @contextlib.contextmanager
    def opened(
        self,
        settings: dict[str, Any],
        budget: agent_upload_state.Budget | None = None,
        clock: Callable[[], float] = time.time,
        **changes: Any,
    ) -> Iterator[Any]:
        """The door's captures and their uploads, by `settings` with changes."""
        given = {**settings, f"{CORE}capture_data_disk_path": str(self.folder / "captures"), **changes}
        captures = agent_edge_captures.open_captures(
            agent_edge_settings.read(json.dumps(given)), {"endpoint": self.link.endpoint}
        )
        uploads = captures.start_uploads(budget or agent_upload_state.Budget(1 << 30), clock)
        try:
            yield captures, uploads
        finally:
            if uploads is not None:
                uploads.close()
            captures.close()

    def objects(self) -> dict[str, bytes]:
        s3 = self.cloud.client("s3")
        listed = s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {each["Key"]: s3.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read() for each in listed}

    def sent(self) -> bool:
        """Whether anything is in the cloud."""
        return bool(self.cloud.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents"))

    def arrived(self, key: re.Pattern[str] = KEY) -> list[str]:
        """Ids in the cloud, each as often as it is there; every file that a line names must be there, whole."""
        objects = self.objects()
        assert [each for each in objects if not key.fullmatch(each)] == []
        found = []
        for name in (name for name in objects if name.endswith(".jsonl")):
            for line in map(json.loads, objects[name].splitlines()):
                found.append(line["eventMetadata"]["eventId"])
                for item in (each for each in line["deviceFleetInputs"] if "file" in each):
                    assert objects[f"{name.rpartition('/')[0]}/{item['file']}"] == tensor(found[-1], file=True)
        return found

    def here(self, root: Path | None = None) -> int:
        """Units on the device."""
        return sum(name.endswith(".jsonl") for _, _, names in os.walk(root or self.folder) for name in names)


def capture(captures: agent_edge_captures.Captures, *, file: bool = False, identity: str = "") -> str:
    """One record, acknowledged; its id."""
    identity = identity or str(uuid.uuid4())
    data = tensor(identity, file=file)
    item = agent_capture_files.Item("x", f"Tensor[uint8; {len(data)}]", data)
    captures.submit(agent_capture_files.Record("a", identity, time.time(), (item,), ()))
    return identity


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clouds.Service]:
    with clouds.running(tmp_path_factory.mktemp("cloud")) as running:
        yield running


@pytest.fixture
def scene(cloud: clouds.Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    make_bucket(cloud)
    for key in [each["Key"] for each in cloud.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])]:
        cloud.client("s3").delete_object(Bucket=BUCKET, Key=key)
    exchange = exchanging.TokenExchange(cloud.key.id, cloud.key.secret)
    for name, value in exchange.environment.items():
        monkeypatch.setenv(name, value)
    made = Scene(tmp_path, cloud, exchange)
    yield made
    made.link.cut()
    exchange.close()


def make_bucket(cloud: clouds.Service, name: str = BUCKET) -> None:
    s3 = cloud.client("s3")
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=name)


def until_saved(captures: agent_edge_captures.Captures, uploads: agent_upload.Uploads, identity: str) -> None:
    def saved() -> bool:
        uploads.look()
        return captures.status(identity) == "SUCCESS"

    parts.until(saved, f"{identity} to be in the cloud: {uploads.figures('a')}")


def test_cloud_when_captured_then_under_way_until_it_is_in_the_bucket_and_no_more_here(scene: Scene) -> None:
    with scene.opened(CLOUD, **{f"{CORE}capture_data_push_period_seconds": 1000}) as (captures, uploads):
        parts.until(lambda: uploads.no_link(5) == "", "a link")
        sent = [capture(captures, file=number == 1) for number in range(2)]
        before = [captures.status(identity) for identity in sent], scene.objects()

        until_saved(captures, uploads, sent[1])
        with pytest.raises(agent_capture.CaptureError) as twice:
            capture(captures, identity=sent[0])

        assert captures.status(sent[0]) == "SUCCESS"
        assert captures.status(str(uuid.uuid4())) is None

    assert before == (["IN_PROGRESS"] * 2, {})
    assert twice.value.code == "ALREADY_EXISTS"
    assert sorted(scene.arrived()) == sorted(sent)
    assert scene.here() == 0


def test_cloud_when_a_batch_is_there_then_sent_at_once(scene: Scene) -> None:
    settings = {f"{CORE}capture_data_push_period_seconds": 1000, f"{CORE}capture_data_batch_size": 3}
    with scene.opened(CLOUD, **settings) as (captures, uploads):
        parts.until(lambda: uploads.no_link(5) == "", "a link")
        sent = [capture(captures) for _ in range(3)]

        parts.until(lambda: [captures.status(identity) for identity in sent] == ["SUCCESS"] * 3, "the batch to be sent")

    assert sorted(scene.arrived()) == sorted(sent)


def test_cloud_when_there_is_no_link_then_refused_and_what_was_acknowledged_is_kept_until_it_is_back(
    scene: Scene,
) -> None:
    with scene.opened(CLOUD, **{f"{CORE}capture_data_push_period_seconds": 1000}) as (captures, uploads):
        parts.until(lambda: uploads.no_link(5) == "", "a link")
        scene.link.cut()
        kept = capture(captures, file=True)
        uploads.look()
        parts.until(lambda: uploads.no_link(5), "the loss to be noticed")

        with pytest.raises(agent_capture.CaptureError, match="no network") as refused:
            capture(captures)
        with pytest.raises(agent_capture.CaptureError) as twice:
            capture(captures, identity=kept)
        under_way = captures.status(kept)
        scene.link.restore()
        until_saved(captures, uploads, kept)
        later = capture(captures)
        until_saved(captures, uploads, later)

    assert (refused.value.code, twice.value.code) == ("FAILED_PRECONDITION", "ALREADY_EXISTS")
    assert under_way == "IN_PROGRESS"
    assert sorted(scene.arrived()) == sorted([kept, later])


def test_cloud_when_there_are_no_credentials_then_no_network(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in scene.exchange.environment:
        monkeypatch.delenv(name)

    with scene.opened(CLOUD) as (captures, _), pytest.raises(agent_capture.CaptureError, match="TokenExch") as refused:
        capture(captures)

    assert refused.value.code == "FAILED_PRECONDITION"


def test_cloud_when_the_store_is_full_then_refused_and_nothing_goes_before_it_is_sent(scene: Scene) -> None:
    late = {f"{PROVIDER}s3_bucket_name": f"{BUCKET}-late", "captureDiskBytes": 128 * 1024}
    sent: list[str] = []
    with scene.opened(CLOUD, **late) as (captures, uploads):

        def fill() -> None:
            for _ in range(100):
                sent.append(capture(captures, file=True))

        with pytest.raises(agent_capture.CaptureError, match="full") as refused:
            fill()
        statuses = {captures.status(identity) for identity in sent}
        make_bucket(scene.cloud, f"{BUCKET}-late")
        until_saved(captures, uploads, sent[-1])
        capture(captures)

        assert {captures.status(identity) for identity in sent} == {"SUCCESS"}

    assert refused.value.code == "RESOURCE_EXHAUSTED"
    assert 5 < len(sent) < 30
    assert statuses == {"IN_PROGRESS"}


def test_cloud_when_opened_again_then_what_waits_is_under_way_and_arrives(scene: Scene) -> None:
    with scene.opened(PERIODIC, **{f"{CORE}capture_data_periodic_upload": "false"}) as (captures, uploads):
        assert uploads is None
        waiting = capture(captures, file=True)  # a device that kept its captures on disk so far

    scene.link.cut()
    with scene.opened(CLOUD) as (captures, uploads):
        assert captures.status(waiting) == "IN_PROGRESS"
        scene.link.restore()
        until_saved(captures, uploads, waiting)

    assert scene.arrived() == [waiting]


@pytest.mark.parametrize("settings", [CLOUD, PERIODIC], ids=["cloud", "periodic"])
def test_status_when_opened_again_after_all_was_sent_then_success_and_the_id_is_not_taken_twice(
    scene: Scene, settings: dict[str, Any]
) -> None:
    with scene.opened(settings) as (captures, uploads):
        sent = [capture(captures) for _ in range(3)]
        parts.until(lambda: uploads.look() or not scene.here(), "all to be sent")
    (file,) = scene.folder.rglob(".sent")
    with file.open("ab") as stream:
        stream.write(b"0a1b2c3d-half")  # of a kill

    with scene.opened(settings) as (captures, uploads):
        assert [captures.status(identity) for identity in sent] == ["SUCCESS"] * 3
        with pytest.raises(agent_capture.CaptureError) as twice:
            capture(captures, identity=sent[0])
        later = capture(captures)
        until_saved(captures, uploads, later)
        parts.until(lambda: uploads.look() or not scene.here(), "it to be sent")
    with scene.opened(settings) as (captures, _):
        assert captures.status(later) == "SUCCESS"

    assert twice.value.code == "ALREADY_EXISTS"
    assert sorted(scene.arrived()) == sorted([*sent, later])


def test_ids_when_more_than_are_kept_then_the_newest_and_the_file_is_bounded(tmp_path: Path) -> None:
    path, given = tmp_path / "ids", [str(uuid.uuid4()) for _ in range(50)]
    ids = agent_capture_ids.Ids(path, 10)
    for place in range(0, 50, 2):
        ids.add(given[place : place + 2])
        assert path.stat().st_size <= 20 * agent_capture_ids.LINE_BYTES

    assert agent_capture_ids.Ids(path, 10).read() == given[-10:]


def test_cloud_when_no_bucket_is_configured_then_refused_and_the_reason_told(scene: Scene) -> None:
    with (
        scene.opened(CLOUD, **{f"{PROVIDER}s3_bucket_name": ""}) as (captures, uploads),
        pytest.raises(agent_capture.CaptureError, match="s3_bucket_name is not set") as refused,
    ):
        capture(captures)

    assert (refused.value.code, uploads) == ("FAILED_PRECONDITION", None)


def test_periodic_upload_when_there_is_no_link_then_saved_on_disk_and_sent_when_it_is_back(scene: Scene) -> None:
    scene.link.cut()
    with scene.opened(PERIODIC) as (captures, uploads):
        sent = []
        for _ in range(5):
            sent.append(capture(captures, file=True))
            uploads.look()
            parts.until(lambda: uploads.figures("a")["error"], "an error")
        assert scene.here() == 1  # not one for each try
        assert {captures.status(identity) for identity in sent} == {"SUCCESS"}
        scene.link.restore()
        parts.until(lambda: uploads.look() or not scene.here(), "all to be sent")

    assert sorted(scene.arrived()) == sorted(sent)


def test_budget_when_two_stores_send_then_the_bytes_of_the_day_are_counted_together(scene: Scene) -> None:
    now = time.time()  # stands still: the day must not end meanwhile
    budget = agent_upload_state.Budget(8000)
    samples = agent_capture_store.Where(scene.folder / "samples", "default", "crane-7", 1 << 22)
    destination = agent_s3.read({"bucket": BUCKET, "endpoint": scene.link.endpoint, "region": clouds.REGION})
    assert destination is not None
    with contextlib.ExitStack() as stack:
        store = agent_capture_store.open_store(samples, stack)
        assert store is not None
        item = agent_capture_files.Item("x", "Tensor[uint8; 6400]", bytes(6400))
        store.submit(agent_capture_files.Record("a", str(uuid.uuid4()), time.time() - 7200, (item,), ()))
        first = agent_upload.Uploads(
            agent_upload.Source(destination, samples.folder, "crane-7", lambda: store), budget, lambda: now
        )
        stack.callback(first.close)
        parts.until(lambda: first.look() or first.figures("a")["units"] == 1, "the samples to be sent")

        with scene.opened(PERIODIC, budget, lambda: now) as (captures, second):
            capture(captures, file=True)
            parts.until(lambda: second.look() or second.figures("a")["waitingUnits"] == 1, "a unit that waits")
            begun = agent_upload_state.State.open(scene.folder / "captures/upload.json")
            parts.until(lambda: second.look() or begun.path.exists(), "it to be begun")

            assert (second.figures("a")["error"], second.figures("a")["today"]) == ("", 0)
            assert [key for key in scene.objects() if key.startswith("north/")] == []


def test_budget_when_a_file_of_one_store_would_go_beyond_it_beside_the_others_then_not_today(tmp_path: Path) -> None:
    budget, now = agent_upload_state.Budget(8000), time.time()
    states = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        states.append(agent_upload_state.State.open(tmp_path / name / "upload.json"))
        budget.join(states[-1])

    assert budget.take(states[0], 6000, now)
    assert not budget.take(states[1], 3000, now)
    assert not budget.allows(states[1], 3000, now)
    assert budget.take(states[1], 2000, now)
    budget.join(agent_upload_state.State.open(states[0].path))  # the same store, read again
    assert not budget.allows(states[1], 1, now)
    assert budget.take(states[1], 3000, now + 86400)


def test_credentials_when_a_certificate_is_configured_then_those_of_its_role_alias(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in scene.exchange.environment:
        monkeypatch.delenv(name)
    service = scene.cloud
    thing = clouds.device(service, "crane-7")
    iot = service.client("iot")
    iot.create_role_alias(roleAlias="Fleet", roleArn="arn:aws:iam::123456789012:role/Fleet")
    statement = {"Effect": "Allow", "Action": "iot:*", "Resource": service.arn("iot", "rolealias/Fleet")}
    iot.create_policy(
        policyName="assume", policyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    iot.attach_policy(policyName="assume", target=thing.certificate_arn)
    (scene.folder / "ca.pem").write_text(service.held.pki.pem)
    files = {
        f"{PROVIDER}aws_ca_cert_file": str(scene.folder / "ca.pem"),
        f"{PROVIDER}aws_cert_file": str(service.root / "crane-7.pem"),
        f"{PROVIDER}aws_cert_pk_file": str(service.root / "crane-7.key"),
        f"{PROVIDER}aws_iot_cred_endpoint": f"{service.held.endpoints.device}/role-aliases/Fleet/credentials",
        f"{CORE}folder_prefix": "things/{thing}",  # the one place where a device of our cloud may put objects
    }

    with scene.opened(CLOUD, **files) as (captures, uploads):
        sent = capture(captures, file=True)
        until_saved(captures, uploads, sent)
    wrong = {**files, f"{PROVIDER}aws_cert_pk_file": str(scene.folder / "absent.key")}
    with scene.opened(CLOUD, **wrong) as (captures, _), pytest.raises(agent_capture.CaptureError, match="its key"):
        capture(captures)

    assert scene.arrived(re.compile(r"things/crane-7/harbour/a/.*")) == [sent]


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({f"{PROVIDER}s3_bucket_name": "captures"}, "must contain sagemaker"),
        ({f"{PROVIDER}s3_bucket_name": "sagemaker captures"}, "no name of a bucket"),
        ({f"{CORE}capture_data_push_period_seconds": "0"}, "push_period_seconds"),
        ({f"{CORE}capture_data_destination": "Tape"}, "use Disk or Cloud"),
        (
            {f"{CORE}capture_data_destination": "Disk", f"{CORE}capture_data_periodic_upload": "often"},
            "periodic_upload",
        ),
        ({f"{PROVIDER}aws_cert_file": "a.pem"}, "all are needed"),
        (
            {
                f"{PROVIDER}aws_cert_file": "a.pem",
                f"{PROVIDER}aws_cert_pk_file": "a.key",
                f"{PROVIDER}aws_iot_cred_endpoint": "endpoint",
            },
            "https://HOST/PATH",
        ),
        ({f"{CORE}folder_prefix": "{thing}/.."}, "part of a path"),
    ],
    ids=["bucket", "name", "push", "destination", "periodic", "certificate", "endpoint", "prefix"],
)
def test_settings_when_they_mean_nothing_then_refused_with_the_key(
    scene: Scene, changed: dict[str, Any], word: str
) -> None:
    with pytest.raises(agent_edge_settings.SettingsError, match=word), scene.opened(CLOUD, **changed):
        pass


def test_store_when_another_is_open_in_its_folder_then_refused(scene: Scene) -> None:
    with (
        scene.opened(CLOUD),
        pytest.raises(agent_edge_settings.SettingsError, match="another store"),
        scene.opened(CLOUD),
    ):
        pass


# ---- real agents -------------------------------------------------------------------------------------------------------


class Client:
    """Edge Manager's calls on a socket."""

    def __init__(self, path: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix://{path}", options=(("grpc.enable_http_proxy", 0),))

    def _call(self, name: str, **fields: Any) -> Any:
        asked, answered = getattr(messages, f"{name}Request"), getattr(messages, f"{name}Response")
        call = self._channel.unary_unary(
            f"/AWS.SageMaker.Edge.Agent/{name}",
            request_serializer=asked.SerializeToString,
            response_deserializer=answered.FromString,
        )
        return call(asked(**fields), timeout=20)

    def capture(self, *, file: bool = False) -> str:
        """The id of a record that was acknowledged. Raises grpc.RpcError."""
        identity = str(uuid.uuid4())
        data = tensor(identity, file=file)
        described = messages.TensorMetadata(name=b"x", data_type=0, shape=[len(data)])
        sent = messages.Tensor(tensor_metadata=described, byte_data=data)
        self._call("CaptureData", model_name="power-curve", capture_id=identity, input_tensors=[sent])
        return identity

    def status(self, identity: str) -> str:
        answer = self._call("GetCaptureDataStatus", capture_id=identity)
        return str(messages.CaptureDataStatus.Name(answer.status))

    def close(self) -> None:
        self._channel.close()


def capturing(path: Path, acknowledged: list[str], stop: threading.Event) -> threading.Thread:
    """A client that captures until nobody answers, or it is told to stop."""

    def run() -> None:
        client = Client(path)
        with contextlib.suppress(grpc.RpcError):
            while not stop.wait(0.01):
                acknowledged.append(client.capture(file=len(acknowledged) % 10 == 0))
        client.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("settings", [CLOUD, PERIODIC], ids=["cloud", "periodic"])
def test_agent_when_killed_or_replaced_while_it_captures_and_sends_then_all_that_was_acknowledged_arrives_once(
    scene: Scene, device: parts.Device, settings: dict[str, Any]
) -> None:
    chance = random.Random(SEED)
    path = device.work("marram.ModelAgent") / "edge.sock"
    upload = {"endpoint": scene.link.endpoint, "region": clouds.REGION}
    environment = {**scene.exchange.environment, "MARRAM_CAPTURE_UPLOAD": json.dumps(upload)}
    given = ("--edge-manager", json.dumps({**settings, "socketPath": "edge.sock"}))
    process = device.start_agent(*given, environment=environment)
    assert device.offer("1.1.0").returncode == 0
    acknowledged: list[str] = []
    for number, killed in enumerate((True, False), 1):
        stop = threading.Event()
        threads = [capturing(path, acknowledged, stop) for _ in range(3)]
        parts.until(lambda count=number * 30: len(acknowledged) >= count, "captures")
        parts.until(scene.sent, "an upload")
        threading.Event().wait(chance.random() * 0.3)
        if killed:
            process.kill()
            process.wait(20)
        before, process = process, device.start_agent(*given, environment=environment)
        before.wait(20)
        stop.set()
        for thread in threads:
            thread.join(30)

    client = Client(path)
    parts.until(lambda: not scene.here(device.root), "the rest to be sent")
    last = client.capture(file=True)
    parts.until(lambda: client.status(last) == "SUCCESS" and not scene.here(device.root), "the last one")
    client.close()

    arrived = scene.arrived()
    assert set(acknowledged) | {last} <= set(arrived)
    assert len(arrived) == len(set(arrived))


def test_agent_when_there_is_no_link_then_clients_get_failed_precondition_and_everything_else_works(
    scene: Scene, device: parts.Device
) -> None:
    scene.link.cut()
    upload = {"endpoint": scene.link.endpoint}
    device.start_agent(
        "--edge-manager",
        json.dumps({**CLOUD, "socketPath": "edge.sock"}),
        environment={**scene.exchange.environment, "MARRAM_CAPTURE_UPLOAD": json.dumps(upload)},
    )
    assert device.offer("1.1.0").returncode == 0
    client = Client(device.work("marram.ModelAgent") / "edge.sock")

    with pytest.raises(grpc.RpcError) as refused:
        client.capture()
    scene.link.restore()

    def accepted() -> str:
        with contextlib.suppress(grpc.RpcError):
            return client.capture()
        return ""

    identity = parts.until(accepted, "a capture to be taken")
    parts.until(lambda: client.status(identity) == "SUCCESS", "it to arrive")
    client.close()

    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "no network" in refused.value.details()
    assert scene.arrived() == [identity]
