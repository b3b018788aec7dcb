from __future__ import annotations

import json
from typing import Any

from msgspec import structs

from nucleus.core import component, configuration, explain, plan, recipe

BASE = ("services", "com.a", "configuration")


def _recipe(name: str, version: str, **needs: str) -> recipe.Recipe:
    document: dict[str, Any] = {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": name,
        "ComponentVersion": version,
        "ComponentDependencies": {other: {"VersionRequirement": wanted} for other, wanted in needs.items()},
        "Manifests": [{}],
    }
    return recipe.read(json.dumps(document).encode(), "test")


def _tree(components: dict[str, str], roots: dict[str, dict[str, str]]) -> configuration.Tree:
    services: dict[str, Any] = {
        name: {"version": version, "componentType": "aws.greengrass.generic"} for name, version in components.items()
    }
    groups = {group: {name: {"version": each} for name, each in members.items()} for group, members in roots.items()}
    services["DeploymentService"] = {"GroupToRootComponents": groups}
    return configuration.merge(configuration.EMPTY, ("services",), services, 7000, "deployment:d1")[0]


def _component(name: str, *needs: str, version: str = "1.0.0") -> component.Component:
    return component.Component(name=name, version=version, dependencies=dict.fromkeys(needs, component.HARD))


def test_origins_when_several_wrote_then_each_leaf_names_its_writer() -> None:
    tree, _ = configuration.merge(configuration.EMPTY, BASE, {"rate": 1, "deep": {"x": 2}}, 1, "default")
    tree, _ = configuration.merge(tree, (*BASE, "deep"), {"x": 3}, 50, "component:com.a")

    assert explain.origins(tree, "com.a", ()) == (
        explain.Origin(("rate",), 1, "default", 1),
        explain.Origin(("deep", "x"), 3, "component:com.a", 50),
    )
    assert explain.origins(tree, "COM.A", ("DEEP", "x")) == (explain.Origin(("DEEP", "x"), 3, "component:com.a", 50),)
    assert explain.origins(tree, "com.a", ("gone",)) is None


def test_reasons_when_group_and_component_ask_then_both_are_named_with_their_ranges() -> None:
    tree = _tree({"com.a": "1.0.0", "com.b": "1.2.0"}, {"thinggroup/t": {"com.a": "1.0.0"}})

    a, b = explain.reasons(tree, {"com.a": _recipe("com.a", "1.0.0", **{"com.b": "^1.0.0"})}, {})

    assert a.requirers == (explain.Requirer("thinggroup/t", "=1.0.0", explain.ROOT),)
    assert b.requirers == (explain.Requirer("com.a 1.0.0", "^1.0.0", component.HARD),)
    assert (b.origin, b.since_ms) == ("deployment:d1", 7000)
    assert "thinggroup/t names this version" in a.sentence


def test_reasons_when_greater_versions_are_stored_then_it_is_said_who_refuses_them() -> None:
    tree = _tree({"com.a": "1.0.0", "com.b": "1.2.0"}, {"thinggroup/t": {"com.a": "1.0.0"}})
    recipes = {"com.a": _recipe("com.a", "1.0.0", **{"com.b": "^1.0.0"})}

    _, b = explain.reasons(tree, recipes, {"com.b": ["2.0.0", "1.3.0", "1.2.0", "1.0.0"]})

    assert b.refused[0] == explain.Refusal("2.0.0", "com.a 1.0.0 requires ^1.0.0")
    assert b.refused[1].version == "1.3.0"
    assert "what runs is kept" in b.refused[1].reason
    assert len(b.refused) == 2


def test_reasons_when_nobody_asks_then_it_is_said() -> None:
    (one,) = explain.reasons(_tree({"com.a": "1.0.0"}, {}), {}, {})

    assert "nobody asks for it" in one.sentence


def test_outlook_when_a_dependency_changes_then_dependents_stop_first_and_start_last() -> None:
    actual = {
        "com.a": _component("com.a", "com.b"),
        "com.b": _component("com.b"),
        "com.c": _component("com.c"),
        "com.old": _component("com.old"),
    }
    wanted = {
        "com.a": actual["com.a"],
        "com.b": _component("com.b", version="2.0.0"),
        "com.c": actual["com.c"],
        "com.new": _component("com.new"),
    }

    found = explain.outlook("g", actual, plan.plan(actual, wanted), downloads=(), changes=(), asking={})

    assert [(one.component, one.version) for one in found.stops] == [("com.a", "1.0.0"), ("com.b", "1.0.0")]
    started = [one.component for one in found.starts]
    assert started.index("com.b") < started.index("com.a")
    assert set(started) == {"com.a", "com.b", "com.new"}
    assert [one.component for one in found.removals] == ["com.old"]
    assert found.unchanged == ("com.c",)
    assert found.stops[0].reason == "it cannot run without com.b"


def test_outlook_when_it_starts_beside_the_old_one_then_nothing_stops_first() -> None:
    beside: dict[str, Any] = {"lifecycle": {"startup": "s"}, "marram": {"update": {"overlap": True}}}
    actual = {"com.a": _component("com.a", "com.b"), "com.b": structs.replace(_component("com.b"), **beside)}
    wanted = actual | {"com.b": structs.replace(actual["com.b"], version="2.0.0")}

    found = explain.outlook("g", actual, plan.plan(actual, wanted), downloads=(), changes=(), asking={})

    assert (found.stops, [one.component for one in found.starts], found.unchanged) == ((), ["com.b"], ("com.a",))
    assert "beside the old one" in found.starts[0].reason


def test_outlook_when_nothing_differs_then_it_is_empty() -> None:
    actual = {"com.a": _component("com.a")}

    found = explain.outlook("g", actual, plan.plan(actual, actual), downloads=(), changes=(), asking={})

    assert (found.stops, found.starts, found.removals, found.unchanged) == ((), (), (), ("com.a",))


def test_outlook_when_records_and_keys_change_then_only_keys_of_components_are_told() -> None:
    changes = (
        configuration.Change((*BASE, "rate"), 2),
        configuration.Change(("services", "com.a", "version"), "2.0.0"),
        configuration.Change((*BASE, "gone"), removed=True),
    )

    found = explain.outlook("g", {}, plan.plan({}, {}), downloads=(), changes=changes, asking={})

    assert found.configuration == ("com.a: gone (removed)", "com.a: rate")


def test_outlook_when_a_bootstrap_or_a_nucleus_key_changes_then_the_restart_is_told() -> None:
    new = component.Component(name="com.a", version="2.0.0", lifecycle={"bootstrap": "exit 100"})
    actual = {"com.a": _component("com.a")}
    way = plan.plan(actual, {"com.a": new})

    asked = explain.outlook("g", actual, way, downloads=(), changes=(), asking={})
    certain = explain.outlook("g", actual, way, restart_keys=("fipsMode",), downloads=(), changes=(), asking={})
    neither = explain.outlook("g", actual, plan.plan(actual, actual), downloads=(), changes=(), asking={})

    assert asked.bootstraps == (explain.Action("com.a", "2.0.0", "version 1.0.0 becomes 2.0.0"),)
    assert "exit code 100" in asked.restart
    assert certain.restart.startswith("fipsMode of the nucleus")
    assert (neither.bootstraps, neither.restart) == ((), "")
