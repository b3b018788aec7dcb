"""A slice of `make ipc-matrix`: a dozen operations with each client as components of a running daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tools.ipc_matrix import __main__ as matrix
from tools.ipc_matrix import node_package, runner

pytestmark = pytest.mark.whole

SLICE = frozenset(
    {
        "PublishToTopic",
        "SubscribeToTopic",
        "PublishToIoTCore",
        "SubscribeToIoTCore",
        "GetConfiguration",
        "UpdateConfiguration",
        "SubscribeToConfigurationUpdate",
        "SubscribeToComponentUpdates",
        "UpdateState",
        "PauseComponent",
        "GetComponentDetails",
        "CreateLocalDeployment",
        "GetSecretValue",
        "UpdateThingShadow",
        "SubscribeToCertificateUpdates",
        "AuthorizeClientDeviceAction",
    }
)


@pytest.fixture(scope="module")
def surroundings() -> Iterator[Any]:
    with matrix.surroundings() as found:
        yield found


@pytest.mark.parametrize("client", matrix.CLIENTS)
def test_client_when_it_uses_a_dozen_operations_then_success_events_and_declared_errors(
    surroundings: Any, client: str
) -> None:
    if client == "javascript":
        _require_javascript()

    found = matrix.play(client, SLICE, *surroundings)

    assert [one for one in found if one.status != "ok"] == []
    assert {one.operation for one in found} == SLICE
    assert {one.operation for one in found if one.by_fault} == SLICE


def test_fault_switch_when_the_root_is_no_test_root_then_operations_go_on(surroundings: Any) -> None:
    system, services, values = surroundings
    with matrix.device(system, "ours", services, values, thing="mx-real", test_root=False) as one:
        one.fault("ipc-service-error:GetConfiguration")
        answer = one.control.ask("main", "call", "GetConfiguration", request={"keyPath": ["nested"]})

    assert "ok" in answer


def test_javascript_model_when_compared_then_declares_the_errors_we_know() -> None:
    declared = node_package.declared_errors(_require_javascript())

    ours = {name: sorted(runner.declared.ERRORS[name]) for name in declared}
    assert {name: sorted(errors) for name, errors in declared.items()} == ours


def _require_javascript() -> Any:
    try:
        return node_package.find(install=False)
    except node_package.Absent as reason:
        pytest.skip(f"the official JavaScript client cannot be used: {reason}")
