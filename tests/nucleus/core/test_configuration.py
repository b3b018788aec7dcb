"""The laws of the configuration tree, and one component's configuration through a deployment (spec/nucleus.md 4.4)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import configuration, errors, values

NAMES = st.sampled_from(["a", "A", "b", "B", "c", "_p"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.floats(-1, 1), st.text(max_size=3))
LEAVES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2))
OBJECTS = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=3),
    lambda inner: st.dictionaries(NAMES, inner | LEAVES, max_size=3),
    max_leaves=8,
)
STAMPS = st.integers(0, 5)
PATHS = st.lists(NAMES, max_size=3).map(tuple)


@st.composite
def trees(draw: st.DrawFn) -> configuration.Tree:
    tree = configuration.EMPTY
    for value, stamp in draw(st.lists(st.tuples(OBJECTS, STAMPS), max_size=3)):
        tree, _ = configuration.merge(tree, (), value, stamp, "file")
    return tree


def lower(value: Any) -> Any:
    """As the tree sees it: names in lower case, the last of two that differ only in case."""
    return {name.lower(): lower(child) for name, child in value.items()} if isinstance(value, dict) else value


def facts(tree: configuration.Tree) -> list[tuple[Any, ...]]:
    """Everything that makes two trees alike, types of values included."""
    found = [
        (path, type(leaf.value), repr(leaf.value), leaf.stamp, leaf.origin) for path, leaf in configuration.leaves(tree)
    ]
    return [sorted(found, key=repr), [lower(configuration.plain(tree))]]  # type: ignore[list-item]


def written(value: Any, stamp: int = 10, origin: str = "file") -> configuration.Tree:
    return configuration.merge(configuration.EMPTY, (), value, stamp, origin)[0]


def test_get_when_names_differ_in_case_then_found_in_first_spelling() -> None:
    tree = written({"Sensor": {"Rate": 5}})
    tree, _ = configuration.merge(tree, ("SENSOR",), {"rate": 6}, 11, "nucleus")

    assert configuration.get(tree, ("sensor", "RATE")) == 6
    assert configuration.get(tree) == {"Sensor": {"Rate": 6}}


def test_get_when_nothing_is_there_then_key_error() -> None:
    tree = written({"a": 1})

    for path in [("b",), ("a", "b")]:
        with pytest.raises(KeyError):
            configuration.get(tree, path)
    with pytest.raises(KeyError):
        configuration.leaf(tree, ())


def test_get_when_the_caller_changes_what_it_got_then_the_tree_does_not() -> None:
    given_list = [1, {"x": [2]}]
    tree = written({"a": given_list})
    given_list.append(3)
    configuration.get(tree)["a"][1]["x"].append(4)

    assert configuration.get(tree) == {"a": [1, {"x": [2]}]}


def test_leaf_when_written_then_keeps_stamp_and_origin() -> None:
    assert configuration.leaf(written({"a": {"b": 1}}, 7, "component:X"), ("a", "b")) == configuration.Leaf(
        1, 7, "component:X"
    )


@pytest.mark.parametrize(("stamp", "value"), [(9, 1), (10, 2), (11, 2)])
def test_merge_when_the_stamp_is_older_then_it_loses_silently(stamp: int, value: int) -> None:
    tree, changes = configuration.merge(written({"a": 1}, 10), (), {"a": 2}, stamp, "file")

    assert configuration.get(tree) == {"a": value}
    assert bool(changes) == (value == 2)


def test_merge_when_one_leaf_is_newer_then_only_that_one_stays() -> None:
    tree = written({"a": 1, "b": {"c": 1}}, 10)
    tree, _ = configuration.merge(tree, ("b", "c"), 5, 20, "component:X")
    tree, changes = configuration.merge(tree, (), {"a": 2, "b": {"c": 2, "d": 2}}, 15, "deployment:1")

    assert configuration.get(tree) == {"a": 2, "b": {"c": 5, "d": 2}}
    assert [change.path for change in changes] == [("a",), ("b", "d")]


@pytest.mark.parametrize(
    ("before", "value", "stamp", "after"),
    [
        ({"a": 1}, {"a": {"b": 2}}, 10, {"a": {"b": 2}}),
        ({"a": 1}, {"a": {"b": 2}}, 9, {"a": 1}),
        ({"a": {"b": 2}}, {"a": 1}, 10, {"a": 1}),
        ({"a": {"b": 2}}, {"a": 1}, 9, {"a": {"b": 2}}),
        ({"a": [1]}, {"a": {"0": 2}}, 10, {"a": {"0": 2}}),
        ({"a": {}}, {"a": 1}, 0, {"a": 1}),
        ({"a": 1}, {"a": {}}, 10, {"a": {}}),
        ({"a": {"b": 1}}, {"a": {}}, 10, {"a": {"b": 1}}),
    ],
)
def test_merge_when_leaf_and_object_meet_then_the_newer_shape(
    before: dict[str, Any], value: dict[str, Any], stamp: int, after: dict[str, Any]
) -> None:
    assert configuration.get(configuration.merge(written(before, 10), (), value, stamp, "file")[0]) == after


def test_merge_when_a_newer_leaf_lies_on_the_way_then_it_stays() -> None:
    tree = written({"a": 1}, 10)

    assert configuration.merge(tree, ("a", "b", "c"), 2, 9, "file") == (tree, ())
    assert configuration.get(configuration.merge(tree, ("a", "b", "c"), 2, 10, "file")[0]) == {"a": {"b": {"c": 2}}}


def test_merge_when_only_the_type_changes_then_it_is_a_change() -> None:
    for one, other in [(1, True), (1, 1.0), (0, False), ([1], [True])]:
        _, changes = configuration.merge(written({"a": one}), (), {"a": other}, 10, "file")

        assert len(changes) == 1


@pytest.mark.parametrize("value", [1, [1], None, "text"])
def test_merge_when_the_whole_would_be_no_object_then_refused(value: Any) -> None:
    with pytest.raises(errors.NucleusError, match="must be an object"):
        configuration.merge(configuration.EMPTY, (), value, 1, "file")


def test_merge_when_nested_too_deep_then_refused() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = {"a": value}

    with pytest.raises(errors.NucleusError, match="deeper than 100") as caught:
        configuration.merge(configuration.EMPTY, ("x",), value, 1, "file")

    assert caught.value.code == "COMPONENT_CONFIGURATION_NOT_VALID"


def test_replace_when_names_are_missing_then_removed_unless_newer() -> None:
    tree = written({"a": 1, "b": {"c": 1}, "e": {}}, 10)
    tree, _ = configuration.merge(tree, ("b", "new"), 1, 20, "component:X")
    tree, changes = configuration.replace(tree, (), {"a": 2}, 15, "deployment:1")

    assert configuration.get(tree) == {"a": 2, "b": {"new": 1}}
    assert sorted(change.path for change in changes if change.removed) == [("b", "c"), ("e",)]


def test_replace_when_a_name_changes_its_case_then_the_new_spelling() -> None:
    tree = written({"Setenv": {"path": "x"}})
    tree, changes = configuration.replace(tree, ("setenv",), {"PATH": "x"}, 10, "file")

    assert configuration.get(tree) == {"Setenv": {"PATH": "x"}}
    assert configuration.get(configuration.apply(written({"Setenv": {"path": "x"}}), changes)) == {
        "Setenv": {"PATH": "x"}
    }


def test_remove_when_leaves_are_newer_then_they_stay() -> None:
    tree = written({"a": {"b": 1, "c": 2}}, 10)
    tree, _ = configuration.merge(tree, ("a", "c"), 3, 20, "component:X")

    assert configuration.get(configuration.remove(tree, ("A",), 19)[0]) == {"a": {"c": 3}}
    assert configuration.get(configuration.remove(tree, ("A",), 20)[0]) == {}
    assert configuration.remove(tree, ("nothing",), 99) == (tree, ())


def test_apply_when_a_change_holds_an_object_then_written_name_by_name() -> None:
    change = configuration.Change(("services", "X"), {"version": "1.0.0", "configuration": {}}, 5, "nucleus")

    tree = configuration.apply(written({"services": {"x": {"old": 1}}}, 99), [change])

    assert configuration.get(tree) == {"services": {"x": {"old": 1, "version": "1.0.0", "configuration": {}}}}


def test_under_when_changes_get_a_prefix_then_only_their_paths_change() -> None:
    changes = configuration.diff(configuration.EMPTY, written({"a": 1}))

    assert configuration.under(("x", "y"), changes) == (configuration.Change(("x", "y", "a"), 1, 10, "file"),)


@given(trees(), PATHS, OBJECTS, STAMPS)
def test_merge_when_done_twice_then_the_second_changes_nothing(
    tree: configuration.Tree, path: configuration.Path, value: dict[str, Any], stamp: int
) -> None:
    once, _ = configuration.merge(tree, path, lower(value), stamp, "x")

    assert configuration.merge(once, path, lower(value), stamp, "x") == (once, ())


@given(trees(), PATHS, OBJECTS, STAMPS)
def test_replace_when_done_twice_then_the_second_changes_nothing(
    tree: configuration.Tree, path: configuration.Path, value: dict[str, Any], stamp: int
) -> None:
    once, _ = configuration.replace(tree, path, lower(value), stamp, "x")

    assert configuration.replace(once, path, lower(value), stamp, "x") == (once, ())


@given(trees(), PATHS, OBJECTS)
def test_merge_when_newest_then_everything_of_it_is_there(
    tree: configuration.Tree, path: configuration.Path, value: dict[str, Any]
) -> None:
    merged, _ = configuration.merge(tree, path, value, 99, "last writer")
    alone = configuration.merge(configuration.EMPTY, (), value, 99, "last writer")[0]

    for below, leaf in configuration.leaves(alone):
        assert configuration.leaf(merged, (*path, *below)) == leaf


@given(trees(), PATHS, OBJECTS)
def test_replace_when_newest_then_exactly_it_is_there(
    tree: configuration.Tree, path: configuration.Path, value: dict[str, Any]
) -> None:
    replaced, _ = configuration.replace(tree, path, value, 99, "last writer")

    assert values.same(lower(configuration.get(replaced, path)), lower(value))


@given(trees(), trees())
def test_diff_when_applied_then_leads_from_one_tree_to_the_other(
    old: configuration.Tree, new: configuration.Tree
) -> None:
    changes = configuration.diff(old, new)

    assert facts(configuration.apply(old, changes)) == facts(new)
    assert configuration.diff(new, new) == ()


@given(trees(), PATHS, st.one_of(OBJECTS, LEAVES), STAMPS, st.sampled_from(["merge", "replace", "remove"]))
def test_updates_when_their_changes_are_replayed_then_the_same_tree(
    tree: configuration.Tree, path: configuration.Path, value: Any, stamp: int, update: str
) -> None:
    if update == "remove":
        after, changes = configuration.remove(tree, path, stamp)
    elif not path and not isinstance(value, dict):
        return
    else:
        after, changes = getattr(configuration, update)(tree, path, value, stamp, "x")

    assert facts(configuration.apply(tree, changes)) == facts(after)
    assert (after is tree) or changes or facts(after) == facts(tree)


@given(trees(), PATHS, OBJECTS, STAMPS)
def test_merge_when_applied_then_no_leaf_gets_older(
    tree: configuration.Tree, path: configuration.Path, value: dict[str, Any], stamp: int
) -> None:
    merged, _ = configuration.merge(tree, path, value, stamp, "x")

    for where, leaf in configuration.leaves(tree):
        node = configuration.find(merged, where)
        assert node is None or configuration.newest(node) >= leaf.stamp or stamp >= leaf.stamp


DEFAULTS = {"single": "default", "path": {"leaf": "default", "list": [1, 2]}, "on": True}


def deploy(
    tree: configuration.Tree, reset: list[str], merge: dict[str, Any], stamp: int, defaults: dict[str, Any] = DEFAULTS
) -> configuration.Tree:
    after, changes = configuration.reset_and_merge(tree, defaults, reset, merge, stamp, f"deployment:{stamp}")
    assert facts(configuration.apply(tree, changes)) == facts(after)
    return after


def test_reset_and_merge_when_deployed_five_times_then_as_the_original() -> None:
    tree = deploy(configuration.EMPTY, [], {}, 100)
    assert configuration.get(tree) == DEFAULTS

    tree = deploy(tree, [], {"single": "merged", "path": {"leaf": "merged", "list": [3]}}, 200)
    assert configuration.get(tree) == {"single": "merged", "path": {"leaf": "merged", "list": [3]}, "on": True}

    tree = deploy(tree, [], {"newSingle": "new", "path": {"newLeaf": None}}, 300)
    assert configuration.get(tree) == {
        "single": "merged",
        "path": {"leaf": "merged", "list": [3], "newLeaf": None},
        "on": True,
        "newSingle": "new",
    }

    tree = deploy(
        tree, ["/newSingle", "/path/leaf", "/path/newLeaf", "/unknown", "/path/list/0", "no pointer"], {}, 400
    )
    assert configuration.get(tree) == {"single": "merged", "path": {"leaf": "default", "list": [3]}, "on": True}

    tree = deploy(tree, [""], {}, 500)
    assert configuration.get(tree) == DEFAULTS


def test_reset_and_merge_when_both_name_a_key_then_reset_comes_first() -> None:
    tree = deploy(written({"path": {"leaf": "old", "extra": 1}}), ["/path"], {"path": {"leaf": "merged"}}, 100)

    assert configuration.get(tree, ("path",)) == {"leaf": "merged", "list": [1, 2]}


def test_reset_and_merge_when_the_recipe_changes_then_only_new_defaults_appear() -> None:
    tree = deploy(configuration.EMPTY, [], {}, 100)

    tree = deploy(tree, [], {}, 200, {"single": "changed", "added": {"x": 1}, "path": "now a text"})

    assert configuration.get(tree) == {**DEFAULTS, "added": {"x": 1}}
    assert configuration.leaf(tree, ("added", "x")) == configuration.Leaf(1, 1, "default")


def test_reset_and_merge_when_the_component_wrote_later_than_the_deployment_then_its_values_stay() -> None:
    tree = deploy(configuration.EMPTY, [], {}, 100)
    tree, _ = configuration.merge(tree, ("path", "leaf"), "learned", 250, "component:X")

    tree = deploy(tree, ["/path"], {"single": "merged", "path": {"leaf": "merged", "list": []}}, 200)

    assert configuration.get(tree) == {"single": "merged", "path": {"leaf": "learned", "list": []}, "on": True}


def test_reset_and_merge_when_nothing_is_new_then_no_changes() -> None:
    tree = deploy(configuration.EMPTY, [], {"single": "x"}, 100)

    assert configuration.reset_and_merge(tree, DEFAULTS, [], {"single": "x"}, 100, "deployment:100") == (tree, ())


def test_reset_and_merge_when_running_is_plain_then_taken_as_oldest() -> None:
    tree, _ = configuration.reset_and_merge({"single": "running"}, DEFAULTS, [], {}, 100, "deployment:1")

    assert configuration.get(tree) == {**DEFAULTS, "single": "running"}


def test_reset_and_merge_when_a_pointer_has_escapes_then_they_are_read() -> None:
    tree = deploy(written({"a/b": 1, "m~n": 2}), ["/a~1b", "/m~0n"], {}, 100, {})

    assert configuration.get(tree) == {}
