"""Prints the life of a component as a Mermaid state diagram, made from the table in nucleus/core/transitions.py.

The committed copy is nucleus/core/lifecycle.mmd: `python -m tools.lifecycle_diagram > nucleus/core/lifecycle.mmd`.
"""

from __future__ import annotations

from nucleus.core import transitions
from nucleus.core.lifecycle import Kind, Phase, State


def diagram() -> str:
    """Every row that goes somewhere or begins a script; rows that only note an event are left out."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.NEW.name}"]
    for row in transitions.TABLE:
        if row.to is None and row.run is None:
            continue
        for state in row.states:
            lines.append(f"    {state.name} --> {(row.to or state).name}: {_label(row)}")
    return "\n".join([*lines, f"    {State.UNINSTALLED.name} --> [*]", ""])


def _label(row: transitions.Row) -> str:
    kinds = ", ".join(kind.value for kind in row.kinds if kind is not Kind.NEXT)
    guards = f"[{' and '.join(when.value for when in row.when)}]" if row.when else ""
    effect = ""
    if row.run is not None:
        effect = "/ end all processes" if row.run is Phase.KILL else f"/ {row.run.value.capitalize()}"
    return " ".join(part for part in (kinds, guards, effect) if part) or "at once"


if __name__ == "__main__":
    print(diagram(), end="")
