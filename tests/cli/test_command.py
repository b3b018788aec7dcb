from __future__ import annotations

import pytest

from nucleus.cli import exits, lazy, tables
from tests.cli import marram


def test_help_when_asked_then_every_verb_of_both_tables_is_there() -> None:
    shown = marram.run("--help")

    assert shown.code == exits.OK
    assert all(verb in shown.out for verb in ("nucleus", "cloud", "deploy", "get", "dev", "demo", "component"))


def test_groups_when_both_tables_have_rows_then_they_are_one() -> None:
    shown = marram.run("component", "--help")

    assert all(verb in shown.out for verb in ("lint", "publish", "list", "versions"))


@pytest.mark.parametrize(
    "wrong", [["nonsense"], ["deploy"], ["get", "devices", "--no-such-option"], ["component", "x"]]
)
def test_usage_when_wrong_then_the_code_is_1_and_nothing_is_on_standard_output(wrong: list[str]) -> None:
    shown = marram.run(*wrong)

    assert shown.code == exits.ERROR
    assert shown.err
    assert not shown.out


def test_verbs_when_imported_then_every_row_leads_to_a_command() -> None:
    rows = [row for table in tables.load("marram.verbs") for row in table if row[1]]

    assert len({name for name, _, _ in rows}) == len(rows)
    for name, target, help_text in rows:
        assert lazy._load(f"marram {name}", target).help
        assert help_text.endswith(".")


def test_tables_when_a_group_has_no_entry_points_then_there_are_none() -> None:
    assert tables.load("marram.no-such-group") == []


def test_verb_when_its_package_is_missing_then_the_cure_is_told() -> None:
    rows = {"x": lazy.Row("tests.cli.needs_a_missing_package:verb", "Needs what is not there.")}
    group = lazy.Verbs("marram", rows, "")

    with pytest.raises(
        exits.Failure, match=r"package no_such_package is not installed \(pip install 'marram\[cloud\]'\)"
    ):
        group.main(["x"], standalone_mode=False)
