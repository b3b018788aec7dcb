from __future__ import annotations

from pathlib import Path

import click
import pytest

from nucleus.cli import arguments


def test_versions_when_well_formed_then_they_are_a_mapping() -> None:
    assert arguments.versions(["a.b=1.0.0", "c=2.0.0-rc.1+x=y"]) == {"a.b": "1.0.0", "c": "2.0.0-rc.1+x=y"}


@pytest.mark.parametrize("wrong", [["a"], ["=1"], ["a="], ["a=1", "a=2"]])
def test_versions_when_malformed_then_usage_is_refused(wrong: list[str]) -> None:
    with pytest.raises(click.BadParameter):
        arguments.versions(wrong)


def test_updates_when_json_or_a_file_then_they_are_joined_by_component(tmp_path: Path) -> None:
    file = tmp_path / "update.yaml"
    file.write_text("b:\n  merge: {x: 1}\n  reset: [/y]\n")

    assert arguments.updates(['{"a": {"MERGE": {"k": "v"}}}', str(file)]) == {
        "a": {"MERGE": {"k": "v"}},
        "b": {"MERGE": {"x": 1}, "RESET": ["/y"]},
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("{", "no JSON"),
        ('{"a": 1}', "no object"),
        ('{"a": {"MERG": {}}}', "MERG;"),
        ('{"a": {"MERGE": []}}', "MERGE of a"),
        ('{"a": {"RESET": "/x"}}', "RESET of a"),
        ("no-such-file.yaml", "cannot read"),
    ],
)
def test_updates_when_malformed_then_the_component_is_named(wrong: str, said: str) -> None:
    with pytest.raises(click.BadParameter, match=said):
        arguments.updates([wrong])
