"""Revokes keys and rules versions out, as fast as it can: python -m tests.nucleus.store.trust_writer ROOT NUMBER."""

from __future__ import annotations

import sys
from pathlib import Path

from nucleus.store import trust

CHANGES = 40


def main(root: Path, number: str) -> None:
    """Makes CHANGES of each."""
    for at in range(CHANGES):
        trust.raise_floors(root, {f"component{number}.{at}": "1.0.0"})
        trust.revoke(root, f"{number}-{at}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
