"""PutComponentMetric with the unmodified official client, and what telemetry makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model

from nucleus.actors import component_metrics
from tests.nucleus import fakes_ipc

Official = Callable[..., Any]
SERVICE = "aws.greengrass.ipc.componentmetric"
OURS = "aws.test.Metrics"
ACCESS = {SERVICE: {"p": {"operations": ["aws.greengrass#PutComponentMetric"], "resources": ["Rows*"]}}}


def metric(name: str, value: float = 1.0, unit: str = model.MetricUnitType.COUNT) -> model.Metric:
    return model.Metric(name=name, unit=unit, value=value)


def test_metrics_when_allowed_then_summed_or_averaged_until_they_are_taken(
    official: Official, world: fakes_ipc.World
) -> None:
    client = official(OURS, access=ACCESS)
    client.put_component_metric(metrics=[metric("Rows", 3), metric("RowsSize", 10, model.MetricUnitType.MEGABYTES)])
    client.put_component_metric(metrics=[metric("Rows", 4), metric("RowsSize", 20, model.MetricUnitType.MEGABYTES)])

    taken = world.do(lambda: world.metrics.take(77))

    told = [{"N": "Rows", "Sum": 7.0, "U": "Count"}, {"N": "RowsSize", "Average": 15.0, "U": "Megabytes"}]
    assert taken == [{"TS": 77, "NS": OURS, "M": told}]
    assert world.do(lambda: world.metrics.take(78)) == []


def test_metrics_when_one_is_not_allowed_then_none_is_taken(official: Official, world: fakes_ipc.World) -> None:
    with pytest.raises(model.UnauthorizedError):
        official(OURS, access=ACCESS).put_component_metric(metrics=[metric("Rows"), metric("Other")])
    assert world.do(lambda: world.metrics.take(1)) == []


@pytest.mark.parametrize("name", ["com.example.App", "greengrass-cli#user-0"])
def test_metrics_when_the_name_does_not_begin_with_aws_then_unauthorized(official: Official, name: str) -> None:
    access = {SERVICE: {"p": {"operations": ["*"], "resources": ["*"]}}}
    with pytest.raises(model.UnauthorizedError):
        official(name, access=access).put_component_metric(metrics=[metric("Rows")])


def test_metrics_when_the_stream_manager_puts_them_then_no_policy_is_asked(official: Official) -> None:
    official("aws.greengrass.StreamManager", access={}).put_component_metric(metrics=[metric("Anything")])


@pytest.mark.parametrize("metrics", [[], [metric("")]])
def test_metrics_when_none_or_nameless_then_invalid_arguments(official: Official, metrics: list[model.Metric]) -> None:
    with pytest.raises(model.InvalidArgumentsError):
        official(OURS, access=ACCESS).put_component_metric(metrics=metrics)


def test_metrics_when_there_are_too_many_names_then_service_error_and_what_was_there_stays(
    official: Official, world: fakes_ipc.World
) -> None:
    client = official(OURS, access=ACCESS)
    client.put_component_metric(metrics=[metric(f"Rows{number}") for number in range(component_metrics.NAMES)])
    with pytest.raises(model.ServiceError) as refusal:
        client.put_component_metric(metrics=[metric("RowsMore")])
    client.put_component_metric(metrics=[metric("Rows0")])

    assert "more than 100" in refusal.value.message
    (taken,) = world.do(lambda: world.metrics.take(1))
    assert len(taken["M"]) == component_metrics.NAMES
    assert taken["M"][0] == {"N": "Rows0", "Sum": 2.0, "U": "Count"}


def test_metrics_when_too_many_components_put_them_then_the_next_is_refused() -> None:
    known = component_metrics.ComponentMetrics()
    for number in range(component_metrics.COMPONENTS):
        known.put(f"aws.{number}", [("a", "COUNT", 1.0)])
    with pytest.raises(component_metrics.Full):
        known.put("aws.more", [("a", "COUNT", 1.0)])
    assert len(known.take(1)) == component_metrics.COMPONENTS
