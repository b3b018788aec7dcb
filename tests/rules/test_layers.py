"""Imports point one way and never in a circle (design.md 2), also those in functions and under TYPE_CHECKING."""

from __future__ import annotations

import pytest

from tests.rules import source

# Higher may import lower. What is not named belongs to `app`, the composition root of its package.
NUCLEUS = ("core", "wire", "host", "store", "uplink", "actors", "ipc", "app")
CLOUD = (("core",), ("objects",), ("store",), ("api", "mqtt"), ("app",))
APART = "optimise"  # of the cloud: works on models, knows no other part and is known by the command line only

# The command line stands beside the daemon: it talks IPC, and reads recipes and places; never a part of the running daemon.
CLI_MAY = ("nucleus.ipc.client", "nucleus.core", "nucleus.wire", "nucleus.host.places", "nucleus.cli")
OPERATOR_MAY = ("cloud.cli", "nucleus.cli", "nucleus.core", "nucleus.wire")
# The verbs that start a whole: the one allowed crossing beside the table of entry points.
STARTERS = {
    "nucleus.cli.nucleus_run": ("nucleus.app",),
    "nucleus.cli.selftest": ("nucleus.selftest",),
    "nucleus.cli.doctor": ("nucleus.doctor",),
    "nucleus.cli.service_files": ("nucleus.host.launch",),
    "nucleus.cli.keys": ("nucleus.store.trust",),
    "nucleus.cli.bundle": ("nucleus.store.trust", "nucleus.uplink.verifier"),
    "cloud.cli.service": ("cloud.app", "cloud.settings"),
    "cloud.cli.optimise": ("cloud.optimise",),
}


def _known() -> frozenset[str]:
    return frozenset(module.name for module in source.modules(*source.OURS))


def _edges() -> list[tuple[str, str, str]]:
    """(importing module, imported module of ours, place)."""
    known = _known()
    found = []
    for module in source.modules(*source.OURS):
        for one in source.imports(module):
            target = source.module_of(one.target, known)
            if target and target != module.name:
                found.append((module.name, target, f"{module.path}:{one.line}"))
    return found


def _layer(name: str) -> str:
    parts = name.split(".")
    return (
        parts[1]
        if len(parts) > 1 and parts[1] in {"cli", APART, *NUCLEUS, *(one for row in CLOUD for one in row)}
        else "app"
    )


def _below(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _allowed(importer: str, imported: str) -> bool:
    if _layer(importer) == "cli":
        may = CLI_MAY if importer.startswith("nucleus.") else OPERATOR_MAY
        return _below(imported, (*may, *STARTERS.get(importer, ())))
    if _layer(imported) == "cli":
        return False
    if importer.startswith("cloud.") and imported.startswith("nucleus."):
        return _below(imported, ("nucleus.core", "nucleus.wire"))
    if importer.split(".")[0] != imported.split(".")[0]:
        return False
    if importer.startswith("nucleus"):
        return NUCLEUS.index(_layer(imported)) <= NUCLEUS.index(_layer(importer))
    return _cloud_allowed(_layer(importer), _layer(imported))


def _cloud_allowed(importer: str, imported: str) -> bool:
    if APART in (importer, imported):
        return importer == imported
    rank = {name: index for index, row in enumerate(CLOUD) for name in row}
    return importer == imported or rank[imported] < rank[importer]


def test_imports_when_between_layers_then_they_point_down() -> None:
    wrong = [
        f"{place}: {importer} imports {imported}"
        for importer, imported, place in _edges()
        if not _allowed(importer, imported)
    ]

    assert not wrong, "\n".join(wrong)


def test_imports_when_followed_then_they_never_come_back() -> None:
    below: dict[str, set[str]] = {}
    for importer, imported, _ in _edges():
        below.setdefault(importer, set()).add(imported)

    assert not _cycle(below), " -> ".join(_cycle(below))


def _cycle(below: dict[str, set[str]]) -> list[str]:
    """One cycle as a path, or nothing."""
    done: set[str] = set()
    for start in sorted(below):
        path: list[str] = []
        pending = [(start, False)]
        while pending:
            name, left = pending.pop()
            if left:
                done.add(path.pop())
            elif name in path:
                return [*path[path.index(name) :], name]
            elif name not in done:
                path.append(name)
                pending.append((name, True))
                pending += [(one, False) for one in sorted(below.get(name, ()))]
    return []


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("nucleus.ipc.server", "nucleus.actors.broker", True),
        ("nucleus.core.plan", "nucleus.wire.rpc", False),
        ("nucleus.cli.component", "nucleus.ipc.client", True),
        ("nucleus.cli.component", "nucleus.actors.deployer", False),
        ("nucleus.cli.logs", "nucleus.app", False),
        ("nucleus.cli.nucleus_run", "nucleus.app", True),
        ("cloud.api.things", "cloud.mqtt.broker", False),
        ("cloud.core.access", "nucleus.host.files", False),
        ("cloud.cli.deploy", "cloud.store.jobs", False),
        ("cloud.cli.deploy", "nucleus.cli.output", True),
        ("cloud.cli.optimise", "cloud.optimise.run", True),
        ("cloud.cli.deploy", "cloud.optimise.run", False),
        ("cloud.optimise.run", "cloud.store.jobs", False),
        ("cloud.api.things", "cloud.optimise.run", False),
        ("nucleus.app", "nucleus.cli.output", False),
        ("nucleus.app", "cloud.core.access", False),
    ],
)
def test_layers_when_asked_then_the_rule_of_the_design_answers(importer: str, imported: str, allowed: bool) -> None:
    assert _allowed(importer, imported) is allowed


def test_cycle_when_there_is_one_then_it_is_told_as_a_path() -> None:
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _cycle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_components_when_they_import_then_nothing_of_ours() -> None:
    # A component is a program of its own: it gets the IPC client as a file among its artifacts (design.md 4.2).
    wrong = [
        f"{module.path}:{one.line}: imports {one.target}"
        for module in source.modules("components")
        for one in source.imports(module)
        if one.target.split(".")[0] in source.OURS
    ]

    assert not wrong, "\n".join(wrong)


def test_ipc_client_when_it_imports_then_the_standard_library_only() -> None:
    import sys

    client = next(module for module in source.modules("nucleus") if module.name == "nucleus.ipc.client")

    strange = [one.target for one in source.imports(client) if one.target.split(".")[0] not in sys.stdlib_module_names]

    assert not strange
