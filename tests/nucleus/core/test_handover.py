"""What is handed over: its text, who may read it, and which calls may be carried out twice."""

from __future__ import annotations

import msgspec
import pytest

from nucleus.core import handover
from nucleus.core.component import Component
from nucleus.core.lifecycle import Life, Phase, State
from nucleus.wire import shapes

CHILD = handover.Child(
    pid=7, start=8, record="a.1.json", code=-9, pipes=(handover.Pipe(11, b"half \xff"), handover.Pipe(-1))
)
RUNNER = handover.Runner(
    record=Component(name="a", version="1.0.0", lifecycle={"run": "x"}),
    used=Component(name="a", version="0.9.0"),
    token="T" * 16,
    life=Life(state=State.RUNNING, desired=(State.FINISHED,), doing=Phase.STARTUP, errors={State.STARTING: (1.5,)}),
    since_at=1.0,
    scripts=(handover.Script(phase="run", child=CHILD, last={"stderr": "no"}, began_at=2.5, timeout_s=3.0),),
    others=(msgspec.structs.replace(CHILD, pipes=(handover.Pipe(12), handover.Pipe(13))),),
)
STATE = handover.State(
    format=handover.FORMAT,
    pid=1,
    root="/r",
    version="0.1.0",
    began_at=0.5,
    lock=3,
    sockets=handover.Sockets(
        "/r/s",
        4,
        (
            handover.Client(
                descriptor=5,
                component="a",
                highest_stream=9,
                received=b"\x00\xff",
                unsent=b"\xfe",
                streams=(handover.Stream(1, "SubscribeToTopic", b'{"topic": "t"}', True),),
            ),
        ),
    ),
    components=handover.Components(generation=2, number=3, runners=(RUNNER,)),
    ports={8080: 6},
    uplink=handover.Uplink(("a/#",), (handover.Message(topic="t", payload=b"\xff", qos=1, correlation=b"\xfd"),), True),
)


def test_state_when_written_and_read_then_the_same() -> None:
    assert handover.decode(handover.encode(STATE), pid=1, root="/r") == STATE


def test_descriptors_when_asked_then_every_open_one() -> None:
    assert handover.descriptors(STATE) == {3, 4, 5, 6, 11, 12, 13}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"format": 2}', "format 2"),
        (b"{}", "damaged"),
        (b"", "damaged"),
        (b'{"format": 1}', "damaged"),
        (handover.encode(msgspec.structs.replace(STATE, pid=2)), "process 2"),
        (handover.encode(msgspec.structs.replace(STATE, root="/other")), "/other"),
        (handover.encode(STATE)[:-20], "damaged"),
    ],
)
def test_state_when_it_is_not_for_us_then_unreadable(data: bytes, why: str) -> None:
    with pytest.raises(handover.Unreadable, match=why):
        handover.decode(data, pid=1, root="/r")


def test_state_when_a_later_version_says_more_then_it_is_still_read() -> None:
    more = msgspec.json.decode(handover.encode(STATE)) | {"added": 1}

    assert handover.decode(msgspec.json.encode(more), pid=1, root="/r") == STATE


def test_repeatable_when_an_operation_changes_something_then_not() -> None:
    once = {name for name in shapes.OPERATIONS if not handover.is_repeatable(name)}

    assert once >= {
        "CreateLocalDeployment",
        "UpdateThingShadow",
        "UpdateConfiguration",
        "PublishToIoTCore",
        "PublishToTopic",
        "DeleteThingShadow",
        "RestartComponent",
        "PauseComponent",
        "CreateDebugPassword",
    }
    assert not any(name.startswith(("Subscribe", "GetConf", "List")) for name in once)
