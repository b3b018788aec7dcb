from __future__ import annotations

import json

import pytest

from cloud.cli import revision

EARLIER = {
    "agent": {"componentVersion": "1.0.0", "configurationUpdate": {"merge": '{"python": "py", "deep": {"a": 1}}'}},
    "model": {"componentVersion": "1.0.0"},
    "monitor": {"componentVersion": "1.0.0", "runWith": {"posixUser": "u"}},
}


def test_plan_when_one_component_is_named_then_all_others_are_carried_over() -> None:
    plan = revision.plan(EARLIER, {"model": "1.1.0"}, {}, ())

    assert plan.components == {**EARLIER, "model": {"componentVersion": "1.1.0"}}
    assert [str(step) for step in plan.steps] == ["~ model 1.0.0 -> 1.1.0"]
    assert plan.unchanged == ("agent", "monitor")
    assert not plan.removes()


def test_plan_when_a_version_changes_then_configuration_and_user_stay() -> None:
    plan = revision.plan(EARLIER, {"monitor": "2.0.0"}, {}, ())

    assert plan.components["monitor"] == {"componentVersion": "2.0.0", "runWith": {"posixUser": "u"}}


def test_plan_when_components_come_and_go_then_both_are_steps() -> None:
    plan = revision.plan(EARLIER, {"new": "1.0.0"}, {}, ("model",))

    assert set(plan.components) == {"agent", "monitor", "new"}
    assert [str(step) for step in plan.steps] == ["- model 1.0.0", "+ new 1.0.0"]
    assert plan.removes()


def test_plan_when_it_starts_from_an_older_revision_then_the_steps_tell_the_way_from_the_newest() -> None:
    newest = {**EARLIER, "model": {"componentVersion": "1.2.0"}, "extra": {"componentVersion": "9.0.0"}}

    plan = revision.plan(EARLIER, {"monitor": "1.1.0"}, {}, (), newest)

    assert [str(step) for step in plan.steps] == ["- extra 9.0.0", "~ model 1.2.0 -> 1.0.0", "~ monitor 1.0.0 -> 1.1.0"]
    assert plan.removes()


def test_plan_when_only_configuration_changes_then_it_is_a_step_of_its_own() -> None:
    plan = revision.plan(EARLIER, {}, {"agent": {"MERGE": {"deep": {"b": 2}}, "RESET": ["/deep/a"]}}, ())

    update = plan.components["agent"]["configurationUpdate"]
    assert json.loads(update["merge"]) == {"python": "py", "deep": {"b": 2}}
    assert update["reset"] == ["/deep/a"]
    assert [str(step) for step in plan.steps] == ["~ agent 1.0.0 (configuration)"]


def test_plan_when_nothing_changes_then_there_is_no_step() -> None:
    assert revision.plan(EARLIER, {"model": "1.0.0"}, {}, ()).steps == ()


@pytest.mark.parametrize(
    ("wanted", "updates", "removed", "said"),
    [
        ({}, {}, ("ghost",), "cannot remove ghost"),
        ({"model": "1.1.0"}, {}, ("model",), "both deploy and remove model"),
        ({}, {"ghost": {"MERGE": {}}}, (), "cannot configure ghost"),
    ],
)
def test_plan_when_it_contradicts_itself_then_the_component_is_named(
    wanted: dict[str, str], updates: dict[str, dict[str, object]], removed: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        revision.plan(EARLIER, wanted, updates, removed)


@pytest.mark.parametrize(
    ("merge", "update", "combined"),
    [
        ("", {"MERGE": {"a": 1}}, {"merge": '{"a": 1}'}),
        ('{"a": {"b": 1, "c": 2}}', {"RESET": ["/a/b"]}, {"merge": '{"a": {"c": 2}}', "reset": ["/a/b"]}),
        ('{"a": 1}', {"RESET": [""]}, {"reset": [""]}),
        ('{"a/b": 1}', {"RESET": ["/a~1b"]}, {"reset": ["/a~1b"]}),
        ('{"a": [1]}', {"MERGE": {"a": [2]}}, {"merge": '{"a": [2]}'}),
    ],
)
def test_combine_when_updates_follow_each_other_then_a_new_device_gets_their_sum(
    merge: str, update: dict[str, object], combined: dict[str, object]
) -> None:
    assert revision.combine({"merge": merge} if merge else {}, update) == combined
