"""No row marked T is forgotten, and every row that is said to be tested is."""

from __future__ import annotations

import re
from pathlib import Path

from tests.field_faults import rows


def test_rows_when_marked_then_tested_or_listed_with_a_reason() -> None:
    assert rows.TESTED.keys() | rows.NOT_HERE.keys() == rows.MARKED
    assert not rows.TESTED.keys() & rows.NOT_HERE.keys()


def test_rows_when_said_to_be_tested_then_there_is_a_test_of_that_name() -> None:
    files = Path(__file__).parent.glob("test_*.py")
    tests = [name for path in files for name in re.findall(r"def test_(\w+)", path.read_text())]

    assert [one for one in rows.TESTED.values() if not any(name.startswith(f"{one}_when") for name in tests)] == []
