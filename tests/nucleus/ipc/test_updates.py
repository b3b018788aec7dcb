"""Component updates and configuration validation with the unmodified official client; cancelling a local deployment."""

from __future__ import annotations

import asyncio
import queue
import uuid
from collections.abc import Callable
from concurrent import futures
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model

from nucleus.core import local
from tests.nucleus import fakes_ipc

Official = Callable[..., Any]
APP = "test.App"


def _in_background(world: fakes_ipc.World, work: Any) -> futures.Future[Any]:
    assert world.loop is not None
    return asyncio.run_coroutine_threadsafe(work, world.loop)


def _listen(client: Any) -> queue.Queue[Any]:
    events: queue.Queue[Any] = queue.Queue()
    client.subscribe_to_component_updates(on_stream_event=events.put, on_stream_error=events.put)
    return events


def test_updates_when_a_deployment_asks_then_pre_event_deferral_second_question_and_post_event(
    official: Official, world: fakes_ipc.World
) -> None:
    client = official(APP)
    events = _listen(client)
    said: list[str] = []

    asking = _in_background(world, world.consent.ask("d1", 60.0, said.append))
    first = events.get(timeout=10).pre_update_event
    client.defer_component_update(deployment_id="d1", recheck_after_ms=50, message="a job is running")
    second = events.get(timeout=10).pre_update_event
    client.defer_component_update(deployment_id="d1", recheck_after_ms=0)
    asking.result(10)
    world.do(lambda: world.consent.over("d1"))

    assert (first.deployment_id, first.is_ggc_restarting) == ("d1", False)
    assert second.deployment_id == "d1"
    assert events.get(timeout=10).post_update_event.deployment_id == "d1"
    assert all(text.startswith(f"waiting for consent of {APP} until ") for text in said)


def test_updates_when_subscribed_while_the_question_is_open_then_asked_too(
    official: Official, world: fakes_ipc.World
) -> None:
    _listen(official("test.Silent"))
    asking = _in_background(world, world.consent.ask("d1", 60.0, lambda _: None))
    client = official(APP)

    events = _listen(client)

    assert events.get(timeout=10).pre_update_event.deployment_id == "d1"
    asking.cancel()


def test_defer_when_not_subscribed_or_nobody_asks_then_the_declared_errors(official: Official) -> None:
    client = official(APP)
    with pytest.raises(model.InvalidArgumentsError):
        client.defer_component_update(deployment_id="d1", recheck_after_ms=1)
    _listen(client)
    with pytest.raises(model.ServiceError):
        client.defer_component_update(deployment_id="d1", recheck_after_ms=1)


def test_defer_when_recheck_is_missing_then_warned_and_the_timeout_decides(
    official: Official, world: fakes_ipc.World
) -> None:
    client = official(APP)
    events = _listen(client)
    asking = _in_background(world, world.consent.ask("d1", 1.0, lambda _: None))
    events.get(timeout=10)

    client.defer_component_update(deployment_id="d1")

    asking.result(10)
    assert "consent.answer_ignored" in world.log.names()


def test_updates_when_the_stream_closes_then_not_waited_for(official: Official, world: fakes_ipc.World) -> None:
    client = official(APP)
    events: queue.Queue[Any] = queue.Queue()
    _, operation = client.subscribe_to_component_updates(on_stream_event=events.put, on_stream_error=events.put)
    asking = _in_background(world, world.consent.ask("d1", 600.0, lambda _: None))
    events.get(timeout=10)

    operation.close().result(10)

    asking.result(10)


def test_updates_when_the_caller_is_no_component_then_refused(official: Official) -> None:
    client = official("greengrass-cli#user-0")
    with pytest.raises(model.ResourceNotFoundError):
        client.subscribe_to_component_updates(on_stream_event=print, on_stream_error=print)


@pytest.mark.parametrize("status", ["ACCEPTED", "REJECTED"])
def test_validation_when_asked_then_the_report_decides(official: Official, world: fakes_ipc.World, status: str) -> None:
    client = official(APP)
    events: queue.Queue[Any] = queue.Queue()
    client.subscribe_to_validate_configuration_updates(on_stream_event=events.put, on_stream_error=events.put)

    asking = _in_background(world, world.validation.validate("d1", {APP: {"speed": 9}}, 60.0, lambda _: None))
    asked = events.get(timeout=10).validate_configuration_update_event
    report = model.ConfigurationValidityReport(deployment_id="d1", status=status, message="9 is odd")
    client.send_configuration_validity_report(configuration_validity_report=report)

    assert (asked.deployment_id, asked.configuration) == ("d1", {"speed": 9})
    failure = asking.exception(10)
    assert (failure is None) == (status == "ACCEPTED")
    if failure is not None:
        assert "refused by test.App: 9 is odd" in str(failure)
    with pytest.raises(model.InvalidArgumentsError):  # nobody waits for it any more
        client.send_configuration_validity_report(configuration_validity_report=report)


def test_cancel_when_queued_then_message_and_later_the_declared_errors(
    official: Official, world: fakes_ipc.World
) -> None:
    client = official("greengrass-cli#user-0")
    deployment_id = str(uuid.uuid4())
    world.deployments.known[deployment_id] = local.LocalStatus(
        deployment_id=deployment_id, status="QUEUED", created_at=1.0
    )

    answer = client.cancel_local_deployment(deployment_id=deployment_id)

    assert deployment_id in answer.message
    with pytest.raises(model.InvalidArgumentsError):
        client.cancel_local_deployment(deployment_id=deployment_id)
    with pytest.raises(model.ResourceNotFoundError):
        client.cancel_local_deployment(deployment_id=str(uuid.uuid4()))
    with pytest.raises(model.InvalidArgumentsError):
        client.cancel_local_deployment(deployment_id="7")
