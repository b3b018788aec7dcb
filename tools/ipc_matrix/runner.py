"""Plays scenarios on one device and says what came of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct, structs

from nucleus.ipc import operations
from tools.ipc_matrix import declared, steps, world

EVENT_S = 50.0  # reconnecting to the cloud waits longer each time, with jitter
SERVICE_ERROR = "ServiceError"
_OPERATIONS = (steps.Call, steps.Subscribe)


class Result(Struct, frozen=True):
    """`status` is ok, failed, or "n.a." with the reason; `by_fault` when the fault switch made the error."""

    client: str
    operation: str
    outcome: str
    status: str
    why: str = ""
    by_fault: bool = False


class NotApplicable(Exception):  # noqa: N818  an answer, not an error
    """The client has no such operation, or refuses such a request by itself."""


class Failed(Exception):  # noqa: N818
    """Something else came than what was expected."""


class Runner:
    """One client's drivers on one device."""

    def __init__(self, name: str, device: world.Device) -> None:
        self._name = name
        self._device = device
        self._ids = itertools.count(1)
        self._streams: dict[str, tuple[str, int]] = {}
        self._refusable = False

    def play(self, scenarios: Iterable[steps.Scenario]) -> list[Result]:
        return [self._play(one) for one in scenarios]

    def play_faults(self, scenarios: Sequence[steps.Scenario], only: Iterable[str]) -> list[Result]:
        """Each operation's first request that succeeds, with the fault switch on: ServiceError."""
        found = []
        for operation in only:
            ends = (
                step for one in scenarios if (one.operation, one.outcome) == (operation, "ok") for step in one.steps
            )
            step = next(each for each in ends if isinstance(each, _OPERATIONS) and each.operation == operation)
            made = structs.replace(step, expect=None, error=SERVICE_ERROR)
            fault = steps.Do("fault", {"text": f"ipc-service-error:{operation}"})
            found.append(self._play(steps.Scenario(operation, SERVICE_ERROR, (fault, made)), by_fault=True))
        return found

    def _play(self, scenario: steps.Scenario, *, by_fault: bool = False) -> Result:
        row = operations.TABLE.get(scenario.operation)
        status, why = "ok", ""
        if row is None or row.handler is None:
            status, why = "failed", "the nucleus does not serve this operation yet"
        else:
            try:
                self._refusable = scenario.refusable
                for step in scenario.steps:
                    self._step(step)
            except NotApplicable as reason:
                status, why = "n.a.", str(reason)
            except (Failed, TimeoutError, KeyError, RuntimeError) as error:
                status, why = "failed", f"{error}"
            finally:
                unclosed = self._clean()
            if unclosed and status == "ok":
                status, why = "failed", unclosed
        return Result(self._name, scenario.operation, scenario.outcome, status, why, by_fault)

    def _clean(self) -> str:
        """Ends the scenario's streams and switches; returns what went wrong with that."""
        self._device.fault()
        answers = [self._device.control.ask(role, "close", id=number) for role, number in self._streams.values()]
        self._streams.clear()
        wrong = (f"closing the stream: {one['error']}: {one['message']}" for one in answers if "ok" not in one)
        return next(wrong, "")

    # ---- steps ---------------------------------------------------------------------------------------------------

    def _step(self, step: steps.Step) -> None:
        self._device.values["now"] = world.now()
        if isinstance(step, steps.Do):
            result = getattr(self._device, step.what)(**self._fill(step.arguments))
            if step.save:
                self._device.values[step.save] = result
        elif isinstance(step, steps.Event):
            self._event(step)
        else:
            self._operation(step)

    def _operation(self, step: steps.Call | steps.Subscribe) -> None:
        role = "main" if step.role == "cli" else step.role
        token = self._device.values["cli_token"] if step.role == "cli" else ""
        number = next(self._ids)
        do = "subscribe" if isinstance(step, steps.Subscribe) else "call"
        request = self._fill(step.request)
        answer = self._device.control.ask(role, do, step.operation, request=request, token=token, id=number)
        if isinstance(step, steps.Subscribe) and "ok" in answer:
            self._streams[step.name] = (role, number)
        self._compare(step, answer)
        if isinstance(step, steps.Call) and not step.error:
            self._save(step.save, answer.get("ok"))

    def _compare(self, step: steps.Call | steps.Subscribe, answer: dict[str, Any]) -> None:
        if "missing" in answer:
            raise NotApplicable(answer["missing"])
        got = answer.get("error", "")
        told = f"{step.operation} as {step.role}"
        if step.error and self._refusable and got.startswith("client:"):
            raise NotApplicable(f"the client refuses such a request itself ({got.partition(':')[2]})")
        if got != step.error:
            what = f"{got}: {answer['message']}" if got else f"the answer {answer['ok']!r:.200}"
            raise Failed(f"{told}: {what}" + (f" instead of {step.error}" if step.error else ""))
        if got and not answer["message"]:
            raise Failed(f"{told}: {got} without a message")
        if got and got not in declared.ERRORS[step.operation]:
            raise Failed(f"{told}: {got} is not declared")
        wrong = "" if got else steps.differs(self._fill(step.expect), answer["ok"])
        if wrong:
            raise Failed(f"{told}: {wrong}")

    def _event(self, step: steps.Event) -> None:
        role, number = self._streams[step.name]
        while True:
            answer = self._device.control.ask(role, "event", id=number, timeout_s=EVENT_S)
            if "ok" not in answer:
                raise Failed(f"event: {answer['error']}: {answer['message']}")
            wrong = steps.differs(self._fill(step.expect), answer["ok"])
            if not wrong:
                return self._save(step.save, answer["ok"])
            if not step.skip:
                raise Failed(f"event: {wrong}")

    def _save(self, names: Any, answer: Any) -> None:
        for name, member in names.items():
            self._device.values[name] = answer[member]

    def _fill(self, value: Any) -> Any:
        return steps.fill(value, self._device.values)
