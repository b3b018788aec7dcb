from __future__ import annotations

import datetime
import json

import pytest

from nucleus.cli import output

ITEMS = [
    {"name": "a", "inner": {"version": "1.0.0"}, "at": datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC)},
    {"name": "longer", "inner": {}, "ok": True},
]
COLUMNS = {"NAME": "name", "VERSION": "inner.version", "AT": "at", "OK": "ok"}


def test_list_when_json_then_it_has_a_schema_version_and_all_keys(capsys: pytest.CaptureFixture[str]) -> None:
    output.show("things", ITEMS, COLUMNS, "json")

    told = json.loads(capsys.readouterr().out)
    assert (told["schemaVersion"], told["kind"]) == (1, "things")
    assert told["items"][0] == {"name": "a", "inner": {"version": "1.0.0"}, "at": "2026-01-02T03:04:05+00:00"}


def test_list_when_table_then_columns_are_aligned_and_gaps_are_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    output.show("things", ITEMS, COLUMNS, "table")

    assert capsys.readouterr().out.splitlines() == [
        "NAME    VERSION  AT                         OK",
        "a       1.0.0    2026-01-02T03:04:05+00:00  -",
        "longer  -        -                          yes",
    ]


def test_list_when_empty_then_people_get_a_sentence_and_machines_an_empty_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.show("things", [], COLUMNS, "table")
    assert capsys.readouterr().out == "No things.\n"

    output.show("things", [], COLUMNS, "json")
    assert json.loads(capsys.readouterr().out)["items"] == []
