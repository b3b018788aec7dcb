"""The generated tables against the installed model, and the checks made from them."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model
from hypothesis import given
from hypothesis import strategies as st

from nucleus.wire import requests, shapes
from tools import generate_shapes


def test_tables_when_generated_again_then_equal_the_committed_file() -> None:
    assert generate_shapes.TARGET.read_text() == generate_shapes.render()


def test_tables_when_counted_then_35_operations_of_which_7_stream() -> None:
    kinds = [kind for kind, *_ in shapes.OPERATIONS.values()]

    assert (len(kinds), kinds.count("streaming")) == (35, 7)


def test_shapes_when_compared_with_the_model_then_no_member_is_lost() -> None:
    for name, text in shapes.SHAPES.items():
        members = text.removeprefix("|").split()
        attributes = set(vars(getattr(model, name)())) - {"args"}

        assert len(members) == len(attributes), name


@pytest.mark.parametrize(
    ("operation", "request_", "checked"),
    [
        ("ListComponents", {}, {}),
        ("ListComponents", {"later": 1}, {}),
        ("UpdateState", {"state": "RUNNING"}, {"state": "RUNNING"}),
        ("UpdateState", {"state": "FINISHED"}, {"state": "FINISHED"}),
        ("SubscribeToTopic", {"topic": "a", "receiveMode": None}, {"topic": "a"}),
        ("SubscribeToIoTCore", {"topicName": "a", "qos": 1}, {"topicName": "a", "qos": "1"}),
        ("GetConfiguration", {}, {}),
        (
            "PublishToTopic",
            {"topic": "a", "publishMessage": {"binaryMessage": {"message": "AAE="}}},
            {"topic": "a", "publishMessage": {"binaryMessage": {"message": "AAE="}}},  # only passed on
        ),
        (
            "PublishToIoTCore",
            {"topicName": "a", "qos": "0", "payload": "AAE="},
            {"topicName": "a", "qos": "0", "payload": b"\x00\x01"},
        ),
        (
            "PublishToTopic",
            {"topic": "a", "publishMessage": {"jsonMessage": {"message": None}, "binaryMessage": None}},
            {"topic": "a", "publishMessage": {"jsonMessage": {"message": None}}},
        ),
        (
            "PublishToIoTCore",
            {"topicName": "a", "qos": "0", "messageExpiryIntervalSeconds": 5.0, "userProperties": [{"key": "k"}]},
            {"topicName": "a", "qos": "0", "messageExpiryIntervalSeconds": 5, "userProperties": [{"key": "k"}]},
        ),
        (
            "UpdateConfiguration",
            {"timestamp": 0, "valueToMerge": [1, {"a": None}]},
            {"timestamp": 0.0, "valueToMerge": [1, {"a": None}]},
        ),
        (
            "CreateLocalDeployment",
            {"componentToRunWithInfo": {"c": {"systemResourceLimits": {"memory": 1, "cpus": 2}}}},
            {"componentToRunWithInfo": {"c": {"systemResourceLimits": {"memory": 1, "cpus": 2.0}}}},
        ),
    ],
)
def test_request_when_good_then_checked(operation: str, request_: Any, checked: Any) -> None:
    assert requests.check(operation, request_) == checked


@pytest.mark.parametrize(
    ("operation", "request_", "says"),
    [
        ("UpdateState", [], "the request must be an object"),
        ("UpdateState", {}, "state is missing"),
        ("UpdateState", {"state": "HAPPY"}, "state must be one of"),
        ("SubscribeToTopic", {"topic": 5}, "topic must be a string"),
        ("SubscribeToIoTCore", {"topicName": "a", "qos": 2}, "qos must be one of 0, 1"),
        ("PublishToTopic", {"topic": "a", "publishMessage": {}}, "publishMessage must have exactly one"),
        (
            "PublishToTopic",
            {"topic": "a", "publishMessage": {"jsonMessage": {}, "binaryMessage": {}}},
            "publishMessage must have exactly one",
        ),
        (
            "PublishToTopic",
            {"topic": "a", "publishMessage": {"binaryMessage": {"message": "AAE"}}},
            "publishMessage.binaryMessage.message is no base64",
        ),
        ("GetConfiguration", {"keyPath": ["a", 1]}, r"keyPath\[1\] must be a string"),
        ("GetConfiguration", {"keyPath": "a"}, "keyPath must be a list"),
        ("UpdateConfiguration", {"timestamp": -1, "valueToMerge": {}}, "timestamp must be seconds since 1970"),
        (
            "UpdateConfiguration",
            {"timestamp": float("inf"), "valueToMerge": {}},
            "timestamp must be a number that is not",
        ),
        ("UpdateConfiguration", {"timestamp": 10**5000, "valueToMerge": {}}, "timestamp must be a number that is not"),
        ("UpdateState", {"state": True}, "state must be one of ERRORED, FINISHED, RUNNING, not True"),
        ("UpdateConfiguration", {"timestamp": 1}, "valueToMerge is missing"),
        ("PublishToIoTCore", {"topicName": "a", "qos": "1", "retain": 1}, "retain must be a boolean"),
        ("DeferComponentUpdate", {"deploymentId": "a", "recheckAfterMs": 1.5}, "recheckAfterMs must be an integer"),
        ("CreateLocalDeployment", {"rootComponentVersionsToAdd": ["a"]}, "rootComponentVersionsToAdd must be an obj"),
        ("CreateLocalDeployment", {"rootComponentVersionsToAdd": {"a": 1}}, "rootComponentVersionsToAdd.a must be a"),
    ],
)
def test_request_when_wrong_then_error_names_the_member(operation: str, request_: Any, says: str) -> None:
    with pytest.raises(requests.RequestError, match=says):
        requests.check(operation, request_)


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(shapes.OPERATIONS)), st.data())
def test_request_when_its_members_are_anything_then_checked_or_request_error(operation: str, data: Any) -> None:
    names = [text.split(":")[0].rstrip("*") for text in shapes.SHAPES[shapes.OPERATIONS[operation][1]].split()]
    request = {name: data.draw(_ANYTHING) for name in names}

    try:
        checked = requests.check(operation, request)
    except requests.RequestError as error:
        assert str(error)  # noqa: PT017 both ends are right
    else:
        assert set(checked) <= set(names)


def test_every_operation_when_compiled_then_every_kind_is_known() -> None:
    for operation in shapes.OPERATIONS:
        required = [t for t in shapes.SHAPES[shapes.OPERATIONS[operation][1]].split() if "*" in t]
        if required:
            with pytest.raises(requests.RequestError):
                requests.check(operation, {})
        else:
            assert requests.check(operation, {}) == {}


@given(st.binary(max_size=40) | st.text(alphabet="AZaz09+/=-\n", max_size=12))
def test_publication_when_its_blob_is_any_text_then_as_strict_as_decoding(content: bytes | str) -> None:
    """What is passed on undecoded is refused exactly when decoding would refuse it."""
    text = base64.b64encode(content).decode() if isinstance(content, bytes) else content
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        expected = False
    else:
        expected = True
    try:
        requests.check("PublishToTopic", {"topic": "a", "publishMessage": {"binaryMessage": {"message": text}}})
    except requests.RequestError:
        assert not expected
    else:
        assert expected
