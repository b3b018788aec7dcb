"""The matrix's own words: nothing of the model is left out, and a wrong answer is seen."""

from __future__ import annotations

from typing import Any

import pytest

from nucleus.wire import shapes
from tools.ipc_matrix import __main__ as matrix
from tools.ipc_matrix import declared, report, runner, steps

OUTCOMES = {(one.operation, one.outcome) for one in matrix.ALL}


@pytest.mark.parametrize("operation", shapes.OPERATIONS)
def test_table_when_compared_with_the_model_then_every_outcome_has_a_scenario_or_a_reason(operation: str) -> None:
    events = shapes.SHAPES.get(shapes.OPERATIONS[operation][3], "").removeprefix("|").split()
    wanted = {"ok", *(f"event {event.partition(':')[0]}" for event in events)}
    wanted |= {one for one in declared.ERRORS[operation] if one != runner.SERVICE_ERROR}  # the fault switch makes these

    shown = {outcome for name, outcome in OUTCOMES if name == operation} - {runner.SERVICE_ERROR}
    excused = {error for name, error in declared.UNREACHABLE if name == operation}

    assert shown | excused == wanted
    assert not shown & excused


@pytest.mark.parametrize(
    ("expected", "found", "wrong"),
    [
        (None, {"a": 1}, ""),
        ({"a": 1}, {"a": 1, "b": 2}, ""),
        ({"a": 1}, {"b": 2}, ".a is None, not 1"),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}, ".a.b[0] is 2, not 1"),
        ([1, 2], [1], "the answer is [1], not [1, 2]"),
        ({"a": str}, {"a": "x"}, ""),
        ({"a": str}, {"a": ""}, ".a is '', no str"),
        ({"a": int}, {}, ".a is None, no int"),
        (steps.Has({"n": 1}), [{"n": 0}, {"n": 1, "m": 2}], ""),
        (steps.Has({"n": 1}), [{"n": 0}], "the answer has no {'n': 1}: [{'n': 0}]"),
        (steps.Json({"v": 1}), steps.document({"v": 1}), ""),
        (steps.Json({"v": 1}), steps.document({"v": 2}), "(json).v is 2, not 1"),
    ],
)
def test_differs_when_compared_then_says_where(expected: Any, found: Any, wrong: str) -> None:
    assert steps.differs(expected, found) == wrong


def test_fill_when_names_are_given_then_whole_texts_become_their_values() -> None:
    values = {"now": 1.5, "thing": "dev", "secret": "s"}

    filled = steps.fill({"at": "<now>", "topic": ["mx/<thing>/up"], "<secret>": steps.Has("<thing>")}, values)

    assert filled == {"at": 1.5, "topic": ["mx/dev/up"], "s": steps.Has("dev")}
    with pytest.raises(KeyError):
        steps.fill("<unknown>", values)


def test_report_when_something_failed_then_row_reason_and_total_say_it() -> None:
    results = [
        runner.Result("python", "GetConfiguration", "ok", "ok"),
        runner.Result("python", "GetConfiguration", "ServiceError", "ok", by_fault=True),
        runner.Result("python", "UpdateState", "ok", "failed", "it was late"),
        runner.Result("javascript", "UpdateState", "ok", "n.a.", "no such operation"),
    ]

    told = report.table(results)

    assert "ok, SE*" in told
    assert "FAILED Python UpdateState, ok: it was late" in told
    assert "n.a. JavaScript: no such operation [UpdateState ok]" in told
    assert "Python 1/2 operations, 2/3 outcomes" in told
    assert "JavaScript 0/0 operations" in told
