"""Fleet provisioning by claim: from a claim certificate to a thing with its own (spec/cloud.md 4.2), over awscrt.

Runs in the short-lived process of `nucleus.uplink.provisioning`, so it may block.
"""

from __future__ import annotations

import json
import queue
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nucleus.core import errors
from nucleus.host import files
from nucleus.uplink import crt

STEP_S = 30.0  # for the connection and for each answer
_CREATE = "$aws/certificates/create/json"
_FROM_CSR = "$aws/certificates/create-from-csr/json"
_NEEDED = (
    "provisioningTemplate",
    "claimCertificatePath",
    "claimCertificatePrivateKeyPath",
    "rootCaPath",
    "iotDataEndpoint",
)


def provision(configuration: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Claims a thing and writes `device.pem` and `device.key`; returns the values for `system` and the nucleus.

    Raises NucleusError (a parameter is missing, the cloud refuses), and TimeoutError or OSError for what may pass.
    """
    missing = [name for name in _NEEDED if not configuration.get(name)]
    if missing:
        raise errors.NucleusError("BAD_REQUEST", f"cannot provision by claim: {', '.join(missing)} is missing")
    folder = Path(str(configuration.get("rootPath") or root))
    session = _Session(configuration)
    try:
        made = _certificate(session, configuration)
        token = str(made["certificateOwnershipToken"])
        parameters = {str(key): str(one) for key, one in (configuration.get("templateParameters") or {}).items()}
        template = str(configuration["provisioningTemplate"])
        topic = f"$aws/provisioning-templates/{template}/provision/json"
        thing = session.ask(topic, {"certificateOwnershipToken": token, "parameters": parameters})["thingName"]
    finally:
        session.close()
    key = str(configuration.get("csrPrivateKeyPath") or "")
    if not key:
        key = str(folder / "device.key")
        files.write_durably(Path(key), str(made["privateKey"]).encode(), 0o600)
    files.write_durably(folder / "device.pem", str(made["certificatePem"]).encode(), 0o644)
    return _values(configuration, str(thing), str(folder / "device.pem"), key)


def _values(configuration: Mapping[str, Any], thing: str, certificate: str, key: str) -> dict[str, Any]:
    nucleus = {
        "awsRegion": configuration.get("awsRegion"),
        "iotDataEndpoint": configuration.get("iotDataEndpoint"),
        "iotCredEndpoint": configuration.get("iotCredentialEndpoint"),
        "iotRoleAlias": configuration.get("iotRoleAlias"),
    }
    found = {name: value for name, value in nucleus.items() if value}
    if configuration.get("mqttPort"):
        found["mqtt"] = {"port": int(configuration["mqttPort"])}
    system = {"certificateFilePath": certificate, "privateKeyPath": key, "rootCaPath": str(configuration["rootCaPath"])}
    return {"system": {"thingName": thing, **system}, "nucleus": found}


def _certificate(session: _Session, configuration: Mapping[str, Any]) -> dict[str, Any]:
    if not configuration.get("csrPath"):
        return session.ask(_CREATE, {})
    if not configuration.get("csrPrivateKeyPath"):
        raise errors.NucleusError("BAD_REQUEST", "cannot provision by claim: csrPath needs csrPrivateKeyPath as well")
    return session.ask(_FROM_CSR, {"certificateSigningRequest": Path(str(configuration["csrPath"])).read_text()})


class _Session:
    """One connection with the claim certificate; `ask` is one request with its answer."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        self._events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._client = crt.mqtt5.Client(self._options(configuration))
        self._client.start()
        word, why = self._next({"up", "down"}, "the connection with the claim certificate")
        if word == "down":
            self.close()
            raise OSError(f"cannot connect to {configuration['iotDataEndpoint']} with the claim certificate: {why}")

    def ask(self, topic: str, request: Mapping[str, Any]) -> dict[str, Any]:
        for word in ("accepted", "rejected"):
            subscription = crt.mqtt5.Subscription(topic_filter=f"{topic}/{word}", qos=crt.mqtt5.QoS.AT_LEAST_ONCE)
            suback = self._client.subscribe(crt.mqtt5.SubscribePacket(subscriptions=[subscription])).result(STEP_S)
            if int(suback.reason_codes[0]) >= 0x80:
                raise errors.NucleusError("ACCESS_DENIED", f"the claim's policy does not allow {topic}/{word}")
        body = json.dumps(request).encode()
        packet = crt.mqtt5.PublishPacket(topic=topic, payload=body, qos=crt.mqtt5.QoS.AT_LEAST_ONCE)
        taken = self._client.publish(packet).result(STEP_S)
        if taken.puback is not None and int(taken.puback.reason_code) >= 0x80:
            raise errors.NucleusError("ACCESS_DENIED", f"the claim's policy does not allow to publish to {topic}")
        word, payload = self._next({f"{topic}/accepted", f"{topic}/rejected"}, f"the answer on {topic}")
        answer = json.loads(payload)
        if word.endswith("/rejected"):
            why = f"{answer.get('errorCode')}: {answer.get('errorMessage')}"
            raise errors.NucleusError("BAD_REQUEST", f"cannot provision by claim: the cloud refused {topic}: {why}")
        return dict(answer)

    def close(self) -> None:
        self._client.stop()

    def _next(self, words: set[str], what: str) -> tuple[str, Any]:
        """The next event of one of these names; others are passed over."""
        try:
            while True:
                word, value = self._events.get(timeout=STEP_S)
                if word in words:
                    return word, value
        except queue.Empty:
            raise TimeoutError(f"cannot provision by claim: {what} did not come within {STEP_S:g} s") from None

    def _options(self, configuration: Mapping[str, Any]) -> Any:
        tls = crt.io.TlsContextOptions.create_client_with_mtls_from_path(
            str(configuration["claimCertificatePath"]), str(configuration["claimCertificatePrivateKeyPath"])
        )
        tls.override_default_trust_store_from_path(None, str(configuration["rootCaPath"]))
        put = self._events.put
        return crt.mqtt5.ClientOptions(
            host_name=str(configuration["iotDataEndpoint"]),
            port=int(configuration.get("mqttPort") or 8883),
            tls_ctx=crt.io.ClientTlsContext(tls),
            connect_options=crt.mqtt5.ConnectPacket(client_id=str(configuration.get("deviceId") or uuid.uuid4())),
            on_publish_callback_fn=lambda data: put(
                (data.publish_packet.topic, bytes(data.publish_packet.payload or b""))
            ),
            on_lifecycle_event_connection_success_fn=lambda _data: put(("up", "")),
            on_lifecycle_event_connection_failure_fn=lambda data: put(("down", str(data.exception))),
        )
