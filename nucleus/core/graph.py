"""The order of components by their dependencies."""

from __future__ import annotations

from collections.abc import Collection, Mapping


class Cycle(Exception):  # noqa: N818 - the name says what was found, as Conflict and Need do
    """Raised when dependencies run in a circle; `path` begins and ends with the same name."""

    def __init__(self, path: tuple[str, ...]) -> None:
        super().__init__(" -> ".join(path))
        self.path = path


def order(edges: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """The keys of `edges`, each after the names it depends on; the same for any order of the input.

    `edges` maps a name to its dependencies; names that are not keys are ignored. Raises Cycle.
    """
    ordered: dict[str, None] = {}
    for root in sorted(edges):
        _visit(root, edges, ordered)
    return tuple(ordered)


def _visit(root: str, edges: Mapping[str, Collection[str]], ordered: dict[str, None]) -> None:
    if root in ordered:
        return
    open_names: dict[str, list[str]] = {root: _next(edges[root])}  # the way from root to here: what is left to visit
    while open_names:
        name, left = next(reversed(open_names.items()))
        if not left:
            ordered[name] = None
            del open_names[name]
            continue
        dependency = left.pop()
        if dependency in open_names:
            way = tuple(open_names)
            raise Cycle((*way[way.index(dependency) :], dependency))
        if dependency in edges and dependency not in ordered:
            open_names[dependency] = _next(edges[dependency])


def _next(names: Collection[str]) -> list[str]:
    """Names to visit, the first at the end of the list."""
    return sorted(names, reverse=True)
