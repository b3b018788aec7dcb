"""What the matrix found, for people: one row for each operation, one column for each client."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from nucleus.wire import shapes
from tools.ipc_matrix import declared, runner

TITLES = {"python": "Python", "javascript": "JavaScript", "ours": "ours"}


def table(results: Sequence[runner.Result]) -> str:
    """The whole report."""
    clients = list(dict.fromkeys(one.client for one in results))
    names = [name for name in shapes.OPERATIONS if any(one.operation == name for one in results)]
    rows = [["operation", *(TITLES[client] for client in clients)]]
    rows += [[name, *(_cell(_of(results, name, client)) for client in clients)] for name in names]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines[1:1] = ["  ".join("-" * width for width in widths)]
    ends = [
        f"{TITLES[one.client]} {one.operations}/{one.operations_of} operations, {one.outcomes}/{one.outcomes_of} outcomes"
        for one in totals(results)
    ]
    return "\n".join([*lines, "", *_notes(results), "", *ends])


def _of(results: Sequence[runner.Result], name: str, client: str) -> list[runner.Result]:
    return [one for one in results if (one.operation, one.client) == (name, client)]


def _cell(found: Sequence[runner.Result]) -> str:
    """E.g. `ok, 2 events, UA IA SE*`."""
    if found and all(one.status == "n.a." for one in found):
        return "n.a."
    failed = [one for one in found if one.status == "failed"]
    events = sum(one.outcome.startswith("event ") and one.status == "ok" for one in found)
    reached = [one for one in found if one.outcome in declared.SHORT and one.status == "ok"]
    real = {one.outcome for one in reached if not one.by_fault}
    errors = [
        declared.SHORT[one.outcome] + ("*" if one.by_fault else "")
        for one in reached
        if not (one.by_fault and one.outcome in real)
    ]
    head = f"FAILED ({len(failed)})" if failed else "ok"
    parts = [head, *([f"{events} event{'s' * (events > 1)}"] if events else []), " ".join(dict.fromkeys(errors))]
    return ", ".join(part for part in parts if part)


def _notes(results: Sequence[runner.Result]) -> list[str]:
    lines = [
        f"FAILED {TITLES[one.client]} {one.operation}, {one.outcome}: {one.why}"
        for one in results
        if one.status == "failed"
    ]
    reasons: dict[str, list[str]] = {}
    for one in results:
        if one.status == "n.a.":
            reasons.setdefault(f"n.a. {TITLES[one.client]}: {one.why}", []).append(f"{one.operation} {one.outcome}")
    lines += [f"{why} [{', '.join(dict.fromkeys(cases))}]" for why, cases in reasons.items()]
    known = {one.operation for one in results}
    lines += [
        f"not reachable: {name} {declared.SHORT[error]}: {why}"
        for (name, error), why in declared.UNREACHABLE.items()
        if name in known
    ]
    shorts = ", ".join(f"{short} {name.removesuffix('Error')}" for name, short in declared.SHORT.items())
    return [*lines, "* by the fault switch ipc-service-error, in a test root", f"errors: {shorts}"]


class Total(Struct, frozen=True):
    """How many operations of a client all of whose outcomes came, of those it knows; the same of outcomes."""

    client: str
    operations: int
    operations_of: int
    outcomes: int
    outcomes_of: int


def totals(results: Sequence[runner.Result]) -> list[Total]:
    found = []
    for client in dict.fromkeys(one.client for one in results):
        own = [one for one in results if one.client == client]
        names = list(dict.fromkeys(one.operation for one in own))
        able = [name for name in names if not all(one.status == "n.a." for one in _of(own, name, client))]
        good = [name for name in able if all(one.status != "failed" for one in _of(own, name, client))]
        counted = [one for one in own if one.status != "n.a."]
        passed = sum(one.status == "ok" for one in counted)
        found.append(Total(client, len(good), len(able), passed, len(counted)))
    return found


def machine(results: Sequence[runner.Result]) -> bytes:
    """Everything as JSON."""
    unreachable = [
        {"operation": name, "error": error, "why": why} for (name, error), why in declared.UNREACHABLE.items()
    ]
    return msgspec.json.encode({"totals": totals(results), "results": results, "unreachable": unreachable})
