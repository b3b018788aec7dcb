"""Operations of ours: for the command line only, whatever a component's policy says."""

from __future__ import annotations

import pytest

from nucleus.ipc import client, operations
from nucleus.wire import extensions, shapes
from tests.nucleus import fakes_ipc


@pytest.mark.parametrize("operation", sorted(extensions.OPERATIONS))
def test_extensions_when_a_component_may_everything_then_it_still_may_not(
    world: fakes_ipc.World, operation: str
) -> None:
    token = world.do(lambda: world.add("test.App", access=fakes_ipc.EVERYTHING))

    with client.Client(str(world.path), token) as one, pytest.raises(client.IPCError) as refused:
        one.call(operation, {})

    assert refused.value.code == "UnauthorizedError"


def test_origins_when_the_command_line_asks_then_every_value_names_its_writer(world: fakes_ipc.World) -> None:
    world.do(lambda: world.add("test.App", rate=1))

    with client.Client(str(world.path), "token-greengrass-cli#user-0") as one:
        found = one.call("marram#GetConfigurationOrigins", {"componentName": "test.App", "keyPath": ["rate"]})

    assert [(each["keyPath"], each["value"], each["origin"]) for each in found["values"]] == [
        (["rate"], 1, "deployment:test")
    ]


def test_plan_when_a_request_has_the_wrong_shape_then_it_is_refused(world: fakes_ipc.World) -> None:
    with (
        client.Client(str(world.path), "token-greengrass-cli#user-0") as one,
        pytest.raises(client.IPCError) as refused,
    ):
        one.call("marram#PlanLocalDeployment", {"rootComponentVersionsToAdd": ["a"]})

    assert refused.value.code == "InvalidArgumentsError"


def test_table_when_compared_with_the_shapes_then_every_operation_has_one() -> None:
    assert operations.TABLE.keys() == shapes.OPERATIONS.keys() | extensions.OPERATIONS.keys()


def test_operation_when_nobody_knows_it_then_service_error_and_connection_lives(world: fakes_ipc.World) -> None:
    token = world.do(lambda: world.add("test.App"))

    with client.Client(str(world.path), token) as one:
        with pytest.raises(client.IPCError, match="OfTomorrow is not supported by this nucleus") as refused:
            one.call("OfTomorrow", {})
        assert refused.value.code == "ServiceError"
        assert "value" in one.call("GetConfiguration", {})
