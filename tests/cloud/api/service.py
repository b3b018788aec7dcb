"""A real service on free ports, in a thread of its own: what the tests of this folder talk to with unmodified clients."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.config
from msgspec import Struct

from cloud import operator_server
from cloud.api import app, device_server, services
from cloud.objects import files
from cloud.store import database, identities, pki

ACCOUNT = "123456789012"
REGION = "us-east-1"
SESSION = boto3.Session()  # its loader keeps the service models: a client then costs milliseconds
RECIPE = """
RecipeFormatVersion: "2020-01-25"
ComponentName: {name}
ComponentVersion: {version}
ComponentDescription: says hello
ComponentPublisher: Example
Manifests:
  - Name: Linux
    Platform: {{os: linux}}
    Lifecycle: {{Run: "python3 {{artifacts:path}}/hello.py"}}
    Artifacts: {artifacts}
"""


class Service(Struct):
    """The running service; `tick_ms` is added to its clock."""

    root: Path
    held: services.Services
    key: identities.AccessKey
    clients: list[Any] = []
    usual: dict[str, Any] = {}
    tick_ms: int = 0
    notified: int = 0

    def client(self, name: str, **changes: Any) -> Any:
        """A boto3 client of the operator, closed with the service; one of each kind, unless something is changed."""
        if not changes and name in self.usual:
            return self.usual[name]
        usual = not changes
        config = botocore.config.Config(retries={"max_attempts": 1, "mode": "standard"}, **changes.pop("config", {}))
        wanted = {
            "endpoint_url": self.held.endpoints.api,
            "region_name": REGION,
            "aws_access_key_id": self.key.id,
            "aws_secret_access_key": self.key.secret,
            "config": config,
        }
        client = SESSION.client(name, **wanted | changes)
        self.clients.append(client)
        if usual:
            self.usual[name] = client
        return client

    def connect(self) -> http.client.HTTPConnection:
        """A plain connection to the operator's port."""
        host, port = self.held.endpoints.api.removeprefix("http://").split(":")
        return http.client.HTTPConnection(host, int(port), timeout=10)

    def arn(self, service: str, tail: str) -> str:
        return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{tail}"

    def publish(self, name: str, version: str, data: bytes | None = None) -> Any:
        """Publishes a component; with `data` as the artifact `hello.py`."""
        artifacts = "[]"
        if data is not None:
            s3 = self.client("s3")
            s3.create_bucket(Bucket="artifacts")
            s3.put_object(Bucket="artifacts", Key=f"{name}/{version}/hello.py", Body=data)
            artifacts = f'[{{Uri: "s3://artifacts/{name}/{version}/hello.py"}}]'
        text = RECIPE.format(name=name, version=version, artifacts=artifacts)
        return self.client("greengrassv2").create_component_version(inlineRecipe=text.encode())


@contextlib.contextmanager
def running(root: Path) -> Iterator[Service]:
    """Starts both servers, yields, stops them and closes all clients."""
    pki.Authority.create(root)
    authority = pki.Authority.open(root)
    authority.issue_server(["localhost", "127.0.0.1"])
    store = database.Database(f"sqlite:///{root / 'cloud.db'}")
    store.create()
    with store.begin() as tx:
        key = identities.create_access_key(tx, "operator", 0)
    made: list[Service] = []

    def clock() -> int:
        return time.time_ns() // 1_000_000 + made[0].tick_ms

    def notify() -> None:
        made[0].notified += 1

    held = services.Services(
        database=store,
        account=ACCOUNT,
        region=REGION,
        objects=files.Objects(root / "objects"),
        endpoints=services.Endpoints(),
        notify=notify,
        pki=authority,
        clock=clock,
    )
    made.append(Service(root, held, key))
    with contextlib.closing(store), _serving(held):
        try:
            yield made[0]
        finally:
            for client in made[0].clients:
                client.close()


@contextlib.contextmanager
def _serving(held: services.Services) -> Iterator[None]:
    ready = threading.Event()
    stops: list[Any] = []

    async def serve() -> None:
        operator = operator_server.OperatorServer(app.build(held), "127.0.0.1", 0, None)
        device = device_server.DeviceServer(held, held.pki.device_context(), "127.0.0.1", 0)
        await operator.start()
        await device.start()
        held.endpoints.api = f"http://127.0.0.1:{operator.port}"
        held.endpoints.device = f"https://localhost:{device.port}"
        held.endpoints.mqtt_port = 8883
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))
        ready.set()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(operator.run()), group.create_task(device.run())]
            await stop.wait()
            for task in tasks:
                task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(10), "the service did not start"
        yield
    finally:
        for stop in stops:
            stop()
        thread.join(20)
        assert not thread.is_alive(), "the service did not stop"


class Device(Struct, frozen=True):
    """A thing with a certificate, and its HTTPS connection to the data plane."""

    thing: str
    certificate_arn: str
    certificate_id: str
    context: ssl.SSLContext
    port: int

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers (lower case), body."""
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.context, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def trusting(service: Service) -> ssl.SSLContext:
    """A client's TLS that trusts our authority only, with the protocols of the Java nucleus."""
    context = ssl.create_default_context(cadata=service.held.pki.pem)
    context.set_alpn_protocols(["x-amzn-http-ca", "http/1.1"])
    return context


def device(service: Service, thing: str, *, policy: dict[str, Any] | None = None) -> Device:
    """Registers a thing the way an operator does: iot calls only. `policy` None allows all of greengrass."""
    iot = service.client("iot")
    made = iot.create_keys_and_certificate(setAsActive=True)
    iot.create_thing(thingName=thing)
    iot.attach_thing_principal(thingName=thing, principal=made["certificateArn"])
    statement = policy or {"Effect": "Allow", "Action": ["greengrass:*"], "Resource": ["*"]}
    text = f'{{"Version":"2012-10-17","Statement":[{json.dumps(statement)}]}}'
    iot.create_policy(policyName=f"policy-{thing}", policyDocument=text)
    iot.attach_policy(policyName=f"policy-{thing}", target=made["certificateArn"])
    pem, key = service.root / f"{thing}.pem", service.root / f"{thing}.key"
    pem.write_text(made["certificatePem"])
    key.write_text(made["keyPair"]["PrivateKey"])
    context = trusting(service)
    context.load_cert_chain(pem, key)
    port = int(service.held.endpoints.device.rpartition(":")[2])
    return Device(thing, made["certificateArn"], made["certificateId"], context, port)
