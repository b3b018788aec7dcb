"""Tables of merge, difference, versions and limits of shadows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import shadow


def updated(*states: dict[str, Any]) -> shadow.Shadow:
    held = shadow.Shadow()
    for number, state in enumerate(states):
        result = shadow.update(held, shadow.Request(state), 1000 * (number + 1))
        assert isinstance(result, shadow.Shadow)
        held = result
    return held


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ({}, {"desired": {"a": 1}}, {"desired": {"a": 1}}),
        ({"desired": {"a": 1}}, {"desired": {"b": 2}}, {"desired": {"a": 1, "b": 2}}),
        ({"desired": {"a": 1}}, {"desired": {"a": None}}, {}),
        ({"desired": {"a": {"x": 1, "y": 2}}}, {"desired": {"a": {"x": None}}}, {"desired": {"a": {"y": 2}}}),
        ({"desired": {"a": {"x": 1}}}, {"desired": {"a": 5}}, {"desired": {"a": 5}}),
        ({"desired": {"a": 5}}, {"desired": {"a": {"x": None, "y": 1}}}, {"desired": {"a": {"y": 1}}}),
        ({"desired": {"a": [1, 2]}}, {"desired": {"a": [3]}}, {"desired": {"a": [3]}}),
        ({"desired": {"a": 1}, "reported": {"b": 1}}, {"desired": None}, {"reported": {"b": 1}}),
    ],
)
def test_update_when_merged_then_null_deletes_objects_merge_and_arrays_are_replaced(
    before: dict[str, Any], change: dict[str, Any], after: dict[str, Any]
) -> None:
    assert updated(before, change).state == after


def test_update_when_one_leaf_changes_then_only_its_timestamp_does() -> None:
    held = updated({"desired": {"a": 1, "b": [1, {"c": 2}]}}, {"desired": {"a": 2}})

    assert held.metadata == {"desired": {"a": {"timestamp": 2}, "b": [{"timestamp": 1}, {"c": {"timestamp": 1}}]}}
    assert held.version == 2


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"not json", 400),
        (b"[" * 100_000, 400),
        (b"{}", 400),
        (b'{"state":5}', 400),
        (b'{"state":{"desired":5}}', 400),
        (b'{"state":{"wished":{}}}', 400),
        (b'{"state":{"desired":{"1":{"2":{"3":{"4":{"5":{"6":{"7":1}}}}}}}}}', 400),
    ],
)
def test_read_when_the_payload_is_no_update_then_it_is_refused(payload: bytes, code: int) -> None:
    result = shadow.read(payload)

    assert isinstance(result, shadow.Refused)
    assert result.code == code


def test_read_when_the_java_nucleus_adds_members_then_they_are_ignored() -> None:
    result = shadow.read(b'{"shadowName":"S","thingName":"T","version":7,"state":{"reported":{"status":"SUCCEEDED"}}}')

    assert result == shadow.Request({"reported": {"status": "SUCCEEDED"}}, 7)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (shadow.Request({"desired": {"a": 1}}, version=5), 409),
        (shadow.Request({"desired": {"a": "x" * 8192}}), 413),
    ],
)
def test_update_when_it_conflicts_or_is_too_large_then_it_is_refused(request_: shadow.Request, code: int) -> None:
    result = shadow.update(shadow.Shadow(), request_, 1000)

    assert isinstance(result, shadow.Refused)
    assert result.code == code


@pytest.mark.parametrize(
    ("desired", "reported", "difference"),
    [
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "y": 3}}, {"a": {"y": 2}}),
        ({"a": [1]}, {"a": [2]}, {"a": [1]}),
        ({}, {"a": 1}, {}),
        ({"a": {"x": 1}}, {"a": 1}, {"a": {"x": 1}}),
    ],
)
def test_delta_when_compared_then_it_is_what_reported_lacks(
    desired: dict[str, Any], reported: dict[str, Any], difference: dict[str, Any]
) -> None:
    assert shadow.delta(desired, reported) == difference


def test_messages_when_a_shadow_changes_then_they_have_the_documented_shape() -> None:
    before = updated({"reported": {"a": 1}})
    request = shadow.Request({"desired": {"a": 2}}, client_token="tok")
    after = shadow.update(before, request, 5000)
    assert isinstance(after, shadow.Shadow)

    stamped = {"a": {"timestamp": 5}}
    assert msgspec.json.decode(shadow.accepted(request, after)) == {
        "state": {"desired": {"a": 2}},
        "metadata": {"desired": stamped},
        "version": 2,
        "timestamp": 5,
        "clientToken": "tok",
    }
    difference = shadow.difference(after, "tok")
    assert difference is not None
    assert msgspec.json.decode(difference) == {
        "state": {"a": 2},
        "metadata": stamped,
        "version": 2,
        "timestamp": 5,
        "clientToken": "tok",
    }
    documents = msgspec.json.decode(shadow.documents(before, after, None))
    assert documents["previous"]["version"] == 1
    assert documents["current"]["state"] == {"reported": {"a": 1}, "desired": {"a": 2}}
    whole = msgspec.json.decode(shadow.whole(after, None, 6000))
    assert whole["state"]["delta"] == {"a": 2}


_trees = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
_objects = st.dictionaries(st.text(max_size=2), _trees, max_size=3)


@given(_objects, _objects)
def test_update_when_the_delta_is_reported_then_nothing_differs_any_more(
    desired: dict[str, Any], reported: dict[str, Any]
) -> None:
    held = updated({"desired": desired, "reported": reported})
    missing = shadow.delta(held.state.get("desired", {}), held.state.get("reported", {}))

    after = shadow.update(held, shadow.Request({"reported": missing}), 9000)

    assert isinstance(after, shadow.Shadow)
    assert shadow.difference(after, None) is None
