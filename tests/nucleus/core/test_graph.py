"""The order of components by their dependencies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import graph

names = st.sampled_from("abcdefgh")
# Edges only to smaller names: never a cycle.
acyclic = st.dictionaries(names, st.sets(names)).map(
    lambda edges: {name: {each for each in targets if each < name} for name, targets in edges.items()}
)


def test_order_when_dependencies_are_given_then_they_come_first() -> None:
    assert graph.order({"monitor": ["agent", "model"], "model": ["agent"], "agent": []}) == (
        "agent",
        "model",
        "monitor",
    )


def test_order_when_a_dependency_is_no_key_then_ignored() -> None:
    assert graph.order({"a": ["elsewhere"]}) == ("a",)


@pytest.mark.parametrize(
    ("edges", "path"),
    [
        ({"a": ["a"]}, ("a", "a")),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, ("b", "c", "b")),
        ({"x": ["y"], "y": ["z"], "z": ["x"]}, ("x", "y", "z", "x")),
    ],
)
def test_order_when_there_is_a_circle_then_it_is_named_as_a_path(
    edges: dict[str, list[str]], path: tuple[str, ...]
) -> None:
    with pytest.raises(graph.Cycle) as caught:
        graph.order(edges)

    assert caught.value.path == path


def test_order_when_the_chain_is_long_then_no_recursion_limit() -> None:
    edges = {f"{number:05}": [f"{number + 1:05}"] for number in range(5000)}

    assert graph.order(edges)[0] == "04999"


@given(acyclic, st.randoms())
def test_order_when_the_input_is_shuffled_then_the_same(edges: dict[str, set[str]], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(edges.items())
    random.shuffle(shuffled)
    ordered = graph.order(edges)

    assert graph.order(dict(shuffled)) == ordered
    assert sorted(ordered) == sorted(edges)
    for name, targets in edges.items():
        assert all(ordered.index(each) < ordered.index(name) for each in targets if each in edges)
