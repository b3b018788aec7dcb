"""The component authors' test kit, used as an author would: real processes and clients, time and faults by hand."""

from __future__ import annotations

import concurrent.futures
import subprocess
import sys
from pathlib import Path
from typing import Any

import awsiot.greengrasscoreipc
import pytest
from awscrt.exceptions import AwsCrtError
from awsiot import eventstreamrpc
from awsiot.greengrasscoreipc import clientv2, model

from nucleus.ipc import client
from nucleus.testkit import nucleus

ROOT = Path(__file__).parents[3]
ECHO = """
from nucleus.ipc.client import Client
with Client() as ipc:
    ipc.update_state("RUNNING")
    with ipc.subscribe("SubscribeToTopic", {"topic": "in"}) as messages:
        ipc.publish("ready", {})
        for event in messages:
            ipc.publish("out", {"seen": event["jsonMessage"]["message"]})
"""


def _official(app: nucleus.Component) -> Any:
    environment = app.environment
    low = awsiot.greengrasscoreipc.connect(
        ipc_socket=environment[client.SOCKET_VARIABLE], authtoken=environment[client.TOKEN_VARIABLE], timeout=10
    )
    return clientv2.GreengrassCoreIPCClientV2(client=low, executor=None)


def test_process_when_started_then_it_reports_hears_and_answers(marram_nucleus: nucleus.Nucleus) -> None:
    app = marram_nucleus.component("com.example.Echo")
    ready, out = marram_nucleus.subscribe("ready"), marram_nucleus.subscribe("out")

    app.start(sys.executable, "-c", ECHO, PYTHONPATH=str(ROOT))
    ready.get()
    heard = marram_nucleus.publish("in", {"number": 1})

    assert heard == 1
    assert out.take() == ("out", {"seen": {"number": 1}})
    assert app.states() == ["RUNNING"]
    assert app.stop() == -15


def test_process_when_it_dies_then_its_words_are_in_the_failure(marram_nucleus: nucleus.Nucleus) -> None:
    app = marram_nucleus.component("com.example.Broken")
    process = app.start(sys.executable, "-c", "raise SystemExit('no sensor')")

    marram_nucleus.until(lambda: process.poll() is not None, "the end")

    assert process.returncode == 1
    assert "no sensor" in app.output()


def test_access_when_it_is_narrow_then_the_policy_decides_as_on_a_device(marram_nucleus: nucleus.Nucleus) -> None:
    access = {nucleus.PUBSUB: {"p": {"operations": ["aws.greengrass#PublishToTopic"], "resources": ["mine/*"]}}}
    app = marram_nucleus.component("com.example.App", access=access)

    with app.client() as ipc:
        ipc.publish("mine/1", b"\x00")
        with pytest.raises(client.IPCError, match="UnauthorizedError"):
            ipc.publish("yours", b"")


def test_bytes_when_published_either_way_then_the_same_bytes(marram_nucleus: nucleus.Nucleus) -> None:
    inbox = marram_nucleus.subscribe("blobs")
    with marram_nucleus.component("com.example.App").client() as ipc:
        subscription = ipc.subscribe("SubscribeToTopic", {"topic": "blobs"})
        marram_nucleus.publish("blobs", b"\x00\xff")
        event = subscription.next_event(10)
        ipc.publish("blobs", b"\x01")

    assert event is not None
    assert event["binaryMessage"]["message"] == "AP8="
    assert [inbox.get(), inbox.get()] == [b"\x00\xff", b"\x01"]
    assert inbox.empty()


def test_configuration_when_changed_then_told_and_readable(marram_nucleus: nucleus.Nucleus) -> None:
    app = marram_nucleus.component("com.example.App", configuration={"limit": 1})
    with app.client() as ipc:
        changes = ipc.subscribe("SubscribeToConfigurationUpdate", {"keyPath": []})
        marram_nucleus.configure(app.name, {"limit": 2})
        event = changes.next_event(10)

        assert event is not None
        assert event["configurationUpdateEvent"]["keyPath"] == ["limit"]
        assert ipc.get_configuration("limit") == 2
    assert app.configuration()["limit"] == 2


def test_cloud_when_a_message_comes_or_goes_then_both_sides_have_it(marram_nucleus: nucleus.Nucleus) -> None:
    with marram_nucleus.component("com.example.App").client() as ipc:
        commands = ipc.subscribe("SubscribeToIoTCore", {"topicName": "commands/#", "qos": "1"})
        marram_nucleus.deliver_from_cloud("commands/stop", b"now")
        event = commands.next_event(10)
        ipc.publish_to_iot_core("alarms", b"hot")

    assert event is not None
    assert event["message"]["payload"] == "bm93"
    assert [one[:3] for one in marram_nucleus.iot_core.published] == [("alarms", b"hot", 1)]


def test_update_when_the_component_defers_then_time_decides_and_time_is_the_tests(
    marram_nucleus: nucleus.Nucleus,
) -> None:
    app = _official(marram_nucleus.component("com.example.App"))
    events: nucleus.Inbox = nucleus.Inbox()
    app.subscribe_to_component_updates(on_stream_event=lambda event: events.put("", event))

    asked = marram_nucleus.ask_for_update("d1")
    assert events.get().pre_update_event.deployment_id == "d1"
    app.defer_component_update(deployment_id="d1", recheck_after_ms=3_600_000)
    marram_nucleus.clock.advance(3_599)
    assert events.empty()
    marram_nucleus.clock.advance(1)
    assert events.get().pre_update_event.deployment_id == "d1"
    app.defer_component_update(deployment_id="d1", recheck_after_ms=0)
    asked.result(10)
    marram_nucleus.tell_update_is_over("d1")

    assert events.get().post_update_event.deployment_id == "d1"
    app.close().result(10)


@pytest.mark.parametrize("status", ["ACCEPTED", "REJECTED"])
def test_validation_when_asked_then_the_components_word(marram_nucleus: nucleus.Nucleus, status: str) -> None:
    app = marram_nucleus.component("com.example.App")
    official = _official(app)

    def answer(event: Any) -> None:
        asked = event.validate_configuration_update_event
        report = model.ConfigurationValidityReport(status=status, deployment_id=asked.deployment_id, message="too hot")
        official.send_configuration_validity_report_async(configuration_validity_report=report)

    official.subscribe_to_validate_configuration_updates(on_stream_event=answer)

    said = marram_nucleus.ask_for_validation(app.name, {"limit": 900})

    assert ("too hot" in said) == (status == "REJECTED")
    official.close().result(10)


def test_faults_when_denied_or_failed_then_that_error_until_cleared(marram_nucleus: nucleus.Nucleus) -> None:
    with marram_nucleus.component("com.example.App").client() as ipc:
        marram_nucleus.faults.deny("PublishToTopic", "com.example.App")
        marram_nucleus.faults.fail("UpdateState", "ServiceError", "the disk is full")
        with pytest.raises(client.IPCError, match="UnauthorizedError: denied by the test"):
            ipc.publish("a", {})
        with pytest.raises(client.IPCError, match="ServiceError: the disk is full"):
            ipc.update_state("RUNNING")

        marram_nucleus.faults.clear("PublishToTopic")
        ipc.publish("a", {})
        with pytest.raises(client.IPCError):
            ipc.update_state("RUNNING")
        marram_nucleus.faults.clear()
        ipc.update_state("RUNNING")


def test_faults_when_dropped_then_no_answer_and_no_effect(marram_nucleus: nucleus.Nucleus) -> None:
    inbox = marram_nucleus.subscribe("a")
    marram_nucleus.faults.drop("PublishToTopic")
    with marram_nucleus.component("com.example.App").client() as ipc:
        with pytest.raises(client.IPCError, match="Timeout"):
            ipc.call(
                "PublishToTopic", {"topic": "a", "publishMessage": {"jsonMessage": {"message": 1}}}, timeout_s=0.05
            )
        ipc.update_state("RUNNING")

    assert inbox.empty()


def test_faults_when_slow_then_served_when_the_clock_has_moved(marram_nucleus: nucleus.Nucleus) -> None:
    inbox = marram_nucleus.subscribe("a")
    marram_nucleus.faults.slow("PublishToTopic", 30)
    official = _official(marram_nucleus.component("com.example.App"))
    message = model.PublishMessage(json_message=model.JsonMessage(message={"a": 1}))
    pending: concurrent.futures.Future[Any] = official.publish_to_topic_async(topic="a", publish_message=message)
    official.update_state(state="RUNNING")  # behind it on the same connection: it has arrived now
    marram_nucleus.clock.advance(29)
    assert not pending.done()
    assert inbox.empty()

    marram_nucleus.clock.advance(1)

    pending.result(10)
    assert inbox.get() == {"a": 1}
    official.close().result(10)


def test_restart_when_the_nucleus_restarts_then_connections_end_and_a_new_one_works(
    marram_nucleus: nucleus.Nucleus,
) -> None:
    app = marram_nucleus.component("com.example.App", configuration={"limit": 1})
    official = _official(app)

    marram_nucleus.restart()

    # What awscrt says depends on what its own thread has noticed of the end: RuntimeError (4104), AWS_IO_SOCKET_CLOSED, closed.
    ended = (eventstreamrpc.ConnectionClosedError, eventstreamrpc.StreamClosedError, RuntimeError, AwsCrtError)
    with pytest.raises(ended):
        official.get_configuration(key_path=["limit"])
    with app.client() as ipc:
        assert ipc.get_configuration("limit") == 1


def test_clock_when_an_action_is_scheduled_then_it_runs_at_its_time(marram_nucleus: nucleus.Nucleus) -> None:
    told: list[float] = []
    marram_nucleus.clock.at(60, lambda: told.append(marram_nucleus.clock.now()))
    marram_nucleus.clock.advance(59.5)
    assert told == []
    marram_nucleus.clock.advance(0.5)
    assert told == [60.0]
    with pytest.raises(ValueError, match="backwards"):
        marram_nucleus.clock.advance(-1)


def test_plugin_when_an_author_writes_a_test_file_then_the_fixture_is_there(tmp_path: Path) -> None:
    """In a pytest of its own, from the installed entry point and nothing else."""
    (tmp_path / "test_mine.py").write_text(
        "def test_mine(marram_nucleus):\n"
        "    app = marram_nucleus.component('com.example.App', configuration={'a': 1})\n"
        "    with app.client() as ipc:\n"
        "        assert ipc.get_configuration('a') == 1\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert found.returncode == 0, found.stdout + found.stderr
    assert "1 passed" in found.stdout
