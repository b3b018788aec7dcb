"""Tensors of the Open Inference Protocol: every data type there and back, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import agent_oip
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.components import models

ANY = st.sampled_from(models.DTYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)


def described(array: Any, **more: Any) -> dict[str, Any]:
    datatype = agent_oip.DATATYPES[array.dtype.name]
    return {"name": "x", "datatype": datatype, "shape": list(array.shape), **more}


def same(left: Any, right: Any) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and np.array_equal(left, right, equal_nan=True)


@given(ANY)
def test_raw_bytes_when_there_and_back_then_the_same(array: Any) -> None:
    body = agent_oip.to_bytes(array)
    request = {"inputs": [described(array, parameters={"binary_data_size": len(body)})]}

    read = agent_oip.read_request(json.loads(json.dumps(request)), memoryview(b"." + body)[1:])  # at an odd place

    assert same(read.inputs["x"], array)
    assert read.inputs["x"].flags.aligned


@given(ANY)
def test_json_when_there_and_back_then_the_same(array: Any) -> None:
    answered, parts = agent_oip.write_answer("m", "1.0.0", agent_oip.Request({}, identity="7"), {"x": array})

    text = json.dumps(answered)
    read = agent_oip.read_request({"inputs": json.loads(text)["outputs"]}, memoryview(b""))

    assert parts == []
    assert (answered["id"], answered["model_version"]) == ("7", "1.0.0")
    assert same(read.inputs["x"], array)


@given(st.lists(ANY, max_size=5))
def test_several_tensors_when_binary_then_each_takes_its_own_bytes(several: list[Any]) -> None:
    bodies = [agent_oip.to_bytes(array) for array in several]
    inputs = [
        described(array, parameters={"binary_data_size": len(body)}) | {"name": str(number)}
        for number, (array, body) in enumerate(zip(several, bodies, strict=True))
    ]

    read = agent_oip.read_request({"inputs": inputs}, memoryview(b"".join(bodies)))

    assert all(same(read.inputs[str(number)], array) for number, array in enumerate(several))


def test_values_when_nested_then_taken_in_order() -> None:
    read = agent_oip.from_values("x", "INT32", (2, 2), [[1, 2], [3, 4]])

    assert read.tolist() == [[1, 2], [3, 4]]


def test_uint64_values_when_on_both_sides_of_the_sign_bit_then_exact() -> None:
    assert agent_oip.from_values("x", "UINT64", (3,), [[0], [2**63], [2**64 - 1]]).tolist() == [0, 2**63, 2**64 - 1]


def test_bool_bytes_when_neither_0_nor_1_then_true() -> None:
    assert agent_oip.from_bytes("x", "BOOL", (3,), b"\x00\x02\xff").tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        ("BF16", [1], [1.0], "unsupported datatype 'BF16'"),
        ("BYTES", [1], ["a"], "unsupported datatype 'BYTES'"),
        ("fp32", [1], [1.0], "unsupported datatype 'fp32'"),
        (None, [1], [1.0], "unsupported datatype 'None'"),
        ("FP32", [-1], [1.0], "bad shape"),
        ("FP32", [True], [1.0], "bad shape"),
        ("FP32", [1.0], [1.0], "bad shape"),
        ("FP32", "1", [1.0], "bad shape"),
        ("FP32", [1] * 33, [1.0], "bad shape"),
        ("FP32", [2**62, 4], [1.0], "above the limit"),
        ("FP32", [0, 2**62, 4], [], "above the limit"),
        ("FP32", [0, 4], [1.0], "unexpected number of elements 1"),
        ("FP32", [2], [1.0], "unexpected number of elements 1 for input 'x', expecting 2"),
        ("FP32", [2], [1.0, [2.0]], "unable to parse 'data'"),
        ("FP32", [1], ["1"], "not all FP32"),
        ("FP32", [1], [None], "not all FP32"),
        ("FP32", [1], [True], "not all FP32"),
        ("FP32", [1], None, "unable to parse 'data'"),
        ("FP32", [1], 5, "unable to parse 'data'"),
        ("FP32", [1], {"a": 1}, "not all FP32"),
        ("INT8", [1], [128], "out of the range of INT8"),
        ("UINT8", [1], [-1], "out of the range of UINT8"),
        ("INT64", [1], [2**63], "out of the range of INT64"),
        ("UINT64", [1], [2**64], "not all UINT64"),
        ("UINT64", [2], [2**63, -1], "not all UINT64"),
        ("UINT64", [2], [2**63, 1.0], "not all UINT64"),
        ("INT32", [1], [1.0], "not all INT32"),
        ("BOOL", [1], [1], "not all BOOL"),
    ],
)
def test_tensor_when_it_is_none_then_refused(datatype: Any, shape: Any, data: Any, words: str) -> None:
    tensor = {"name": "x", "datatype": datatype, "shape": shape, "data": data}

    with pytest.raises(agent_oip.OipError, match=words.replace("(", r"\(")) as refused:
        agent_oip.read_request({"inputs": [tensor]}, memoryview(b""))

    assert refused.value.code == "INVALID_ARGUMENT"


GOOD = {"name": "x", "datatype": "UINT8", "shape": [2]}


@pytest.mark.parametrize(
    ("given_", "binary", "words"),
    [
        ({"inputs": [GOOD | {"parameters": {"binary_data_size": 2}}]}, b"123", "1 bytes belong to no input"),
        ({"inputs": [GOOD | {"parameters": {"binary_data_size": 3}}]}, b"12", "unexpected additional input data"),
        ({"inputs": [GOOD | {"parameters": {"binary_data_size": 1}}]}, b"1", "byte size 1 for input 'x', expecting 2"),
        ({"inputs": [GOOD | {"parameters": {"binary_data_size": -2}}]}, b"12", "unexpected additional input data"),
        ({"inputs": [GOOD | {"parameters": {"binary_data_size": "2"}}]}, b"12", "unexpected additional input data"),
        ({"inputs": [GOOD | {"parameters": []}]}, b"", "'parameters' must be an object"),
        ({"inputs": [GOOD | {"data": [1, 2]}] * 2}, b"", "input 'x' already exists in request"),
        ({"inputs": [GOOD] * 65}, b"", "at most 64"),
        ({"inputs": {}}, b"", "'inputs' must be a list"),
        ({"inputs": [1]}, b"", "'inputs' must be a list"),
        ({"inputs": [GOOD | {"name": ""}]}, b"", "needs a name"),
        ({"inputs": [GOOD | {"name": "x" * 257}]}, b"", "needs a name"),
        ({"outputs": [{}]}, b"", "an output needs a name"),
        ({"parameters": {"timeout": "1"}}, b"", "'timeout' must be"),
        ({"parameters": {"timeout": -1}}, b"", "'timeout' must be"),
        ({"parameters": {"sequence_id": 4}}, b"", "sequence_id"),
        ({"inputs": [GOOD | {"parameters": {"shared_memory_region": "r"}}]}, b"", "a place in shared memory needs"),
        (
            {"outputs": [{"name": "y", "parameters": {"shared_memory_region": 1}}]},
            b"",
            "a place in shared memory needs",
        ),
    ],
)
def test_request_when_it_is_none_then_refused(given_: dict[str, Any], binary: bytes, words: str) -> None:
    with pytest.raises(agent_oip.OipError, match=words) as refused:
        agent_oip.read_request(given_, memoryview(binary))

    assert refused.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "given_",
    [
        {"parameters": {"classification": 3}},
        {"outputs": [{"name": "y", "parameters": {"classification": 3}}]},
    ],
)
def test_extension_when_not_spoken_then_unimplemented(given_: dict[str, Any]) -> None:
    with pytest.raises(agent_oip.OipError) as refused:
        agent_oip.read_request(given_, memoryview(b""))

    assert refused.value.code == "UNIMPLEMENTED"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_json_when_it_is_none_then_refused(text: bytes) -> None:
    with pytest.raises(agent_oip.OipError, match="failed to parse the request JSON buffer"):
        agent_oip.read_json(text)


def test_outputs_when_some_are_wanted_as_bytes_then_each_as_asked() -> None:
    wanted = [{"name": "a", "parameters": {"binary_data": True}}, {"name": "b"}]
    request = agent_oip.read_request({"outputs": wanted}, memoryview(b""))
    array = np.array([1, 2], dtype=np.int16)

    answered, parts = agent_oip.write_answer("m", "1", request, {"a": array, "b": array})

    assert parts == [b"\x01\x00\x02\x00"]
    assert answered["outputs"][0]["parameters"] == {"binary_data_size": 4}
    assert answered["outputs"][1]["data"] == [1, 2]


def test_timeout_when_given_then_in_seconds_and_0_is_none() -> None:
    assert [agent_oip.timeout(given_) for given_ in (None, 0, 1500)] == [None, None, 0.0015]


def test_floats_when_not_finite_then_they_travel_in_json_as_numbers() -> None:
    array = np.array([math.nan, math.inf, -math.inf], dtype=np.float16)

    answered, _ = agent_oip.write_answer("m", "1", agent_oip.Request({}), {"x": array})
    read = agent_oip.read_request({"inputs": json.loads(json.dumps(answered))["outputs"]}, memoryview(b""))

    assert same(read.inputs["x"], array)
