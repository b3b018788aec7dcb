"""Behaviour 71: local shadows for unmodified official clients; synchronisation is in test_shadow_sync.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from awsiot.greengrasscoreipc import model

from tests.nucleus import shadow_device

THING = shadow_device.THING
BOTH = pytest.mark.parametrize("name", ["", "one"])


@pytest.fixture
def device() -> Iterator[shadow_device.Device]:
    with shadow_device.running() as one:
        yield one


def prefix(name: str) -> str:
    return f"$aws/things/{THING}/shadow" + (f"/name/{name}" if name else "")


def update(client: Any, name: str, body: Any) -> dict[str, Any]:
    payload = msgspec.json.encode(body)
    answer = client.update_thing_shadow(thing_name=THING, shadow_name=name, payload=payload)
    return shadow_device.document(answer.payload)


def get(client: Any, name: str) -> dict[str, Any]:
    return shadow_device.document(client.get_thing_shadow(thing_name=THING, shadow_name=name).payload)


@BOTH
def test_71_update_and_get_when_done_then_the_document_has_state_metadata_version_and_delta(
    device: shadow_device.Device, name: str
) -> None:
    client = device.client()

    accepted = update(client, name, {"state": {"desired": {"a": 1, "b": {"c": 2}}}, "clientToken": "tok"})
    update(client, name, {"state": {"reported": {"a": 1}, "desired": {"b": {"c": None, "d": 3}}}})
    found = get(client, name)

    assert accepted["state"] == {"desired": {"a": 1, "b": {"c": 2}}}
    assert (accepted["version"], accepted["clientToken"]) == (1, "tok")
    assert found["state"] == {"desired": {"a": 1, "b": {"d": 3}}, "reported": {"a": 1}, "delta": {"b": {"d": 3}}}
    assert found["version"] == 2
    assert set(found["metadata"]["desired"]["b"]["d"]) == {"timestamp"}


@BOTH
def test_71_delete_when_done_then_gone_and_its_versions_go_on(device: shadow_device.Device, name: str) -> None:
    client = device.client()
    update(client, name, {"state": {"reported": {"a": 1}}})

    answer = client.delete_thing_shadow(thing_name=THING, shadow_name=name)

    assert bytes(answer.payload or b"") == b""
    with pytest.raises(model.ResourceNotFoundError) as error:
        client.get_thing_shadow(thing_name=THING, shadow_name=name)
    assert error.value.resource_type == "shadow"
    with pytest.raises(model.ResourceNotFoundError):
        client.delete_thing_shadow(thing_name=THING, shadow_name=name)
    assert update(client, name, {"state": {"reported": {"b": 1}}})["version"] > 1
    assert get(client, name)["state"] == {"reported": {"b": 1}}


def test_71_list_when_there_are_more_than_a_page_then_a_token_leads_on(device: shadow_device.Device) -> None:
    client, other = device.client(), device.client("test.Other")
    for number in range(30):
        update(client, f"n{number:02}", {"state": {"reported": {"n": number}}})
    update(client, "", {"state": {"reported": {}}})
    client.delete_thing_shadow(thing_name=THING, shadow_name="n29")

    first = client.list_named_shadows_for_thing(thing_name=THING)
    second = client.list_named_shadows_for_thing(thing_name=THING, next_token=first.next_token)
    all_ = client.list_named_shadows_for_thing(thing_name=THING, page_size=29)

    assert first.results == [f"n{number:02}" for number in range(25)]
    assert second.results == [f"n{number:02}" for number in range(25, 29)]
    assert second.next_token is None
    assert all_.next_token is None
    assert first.timestamp is not None
    for wrong in ({"page_size": 0}, {"page_size": 101}, {"next_token": "nonsense"}):
        with pytest.raises(model.InvalidArgumentsError):
            client.list_named_shadows_for_thing(thing_name=THING, **wrong)
    with pytest.raises(model.InvalidArgumentsError):
        other.list_named_shadows_for_thing(thing_name=THING, next_token=first.next_token)


@BOTH
def test_71_local_topics_when_shadows_change_then_accepted_documents_delta_and_rejected_are_heard(
    device: shadow_device.Device, name: str
) -> None:
    client = device.client()
    heard = shadow_device.listen(client, f"{prefix(name)}/*")
    every = [shadow_device.listen(client, f"{prefix(name)}/{verb}/+") for verb in ("get", "update", "delete")]
    words = name and f"name/{name}/"

    update(client, name, {"state": {"desired": {"a": 1}}, "clientToken": "t1"})
    changes = [every[1].get(timeout=10) for _ in range(3)]
    get(client, name)
    with pytest.raises(model.ConflictError):
        update(client, name, {"state": {"desired": {"a": 2}}, "version": 7, "clientToken": "t2"})
    client.delete_thing_shadow(thing_name=THING, shadow_name=name)
    with pytest.raises(model.ResourceNotFoundError):
        client.get_thing_shadow(thing_name=THING, shadow_name=name)
    with pytest.raises(model.ResourceNotFoundError):
        client.delete_thing_shadow(thing_name=THING, shadow_name=name)

    assert [topic for topic, _ in changes] == [f"{words}update/{one}" for one in ("accepted", "documents", "delta")]
    assert changes[0][1]["clientToken"] == "t1"
    assert changes[1][1]["current"]["state"] == {"desired": {"a": 1}}
    assert "previous" not in changes[1][1]
    assert changes[2][1]["state"] == {"a": 1}
    conflict = every[1].get(timeout=10)
    assert (conflict[0], conflict[1]["code"], conflict[1]["clientToken"]) == (f"{words}update/rejected", 409, "t2")
    assert [every[0].get(timeout=10)[0] for _ in range(2)] == [f"{words}get/accepted", f"{words}get/rejected"]
    deleted = [every[2].get(timeout=10) for _ in range(2)]
    assert [topic for topic, _ in deleted] == [f"{words}delete/accepted", f"{words}delete/rejected"]
    assert (deleted[0][1]["version"], deleted[1][1]["code"]) == (1, 404)
    assert heard.empty()  # `*` is a wildcard of policies, not of local topics


@BOTH
def test_71_local_topics_when_requests_are_published_then_they_are_served(
    device: shadow_device.Device, name: str
) -> None:
    client = device.client()
    heard = {verb: shadow_device.listen(client, f"{prefix(name)}/{verb}/+") for verb in ("get", "update", "delete")}

    shadow_device.publish(client, f"{prefix(name)}/update", {"state": {"reported": {"a": 1}}, "clientToken": "u"})
    message = model.PublishMessage(json_message=model.JsonMessage(message={"clientToken": "g"}))
    client.publish_to_topic(topic=f"{prefix(name)}/get", publish_message=message)
    shadow_device.publish(client, f"{prefix(name)}/update", {"state": 5, "clientToken": "bad"})
    shadow_device.publish(client, f"{prefix(name)}/delete", {"clientToken": "d"})

    updated, read, deleted = (
        heard["update"].get(timeout=10),
        heard["get"].get(timeout=10),
        heard["delete"].get(timeout=10),
    )
    assert updated[1]["state"] == {"reported": {"a": 1}}
    assert read[1]["state"] == {"reported": {"a": 1}}
    assert [one[1]["clientToken"] for one in (updated, read, deleted)] == ["u", "g", "d"]
    assert heard["update"].get(timeout=10)[0].endswith("update/documents")
    assert heard["update"].get(timeout=10)[1]["code"] == 400
