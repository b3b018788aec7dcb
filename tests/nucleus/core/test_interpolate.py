"""Recipe variables in lifecycles (spec/nucleus.md 1.8)."""

from __future__ import annotations

import pytest

from nucleus.core import interpolate

SYSTEM = interpolate.System("/root", "turbine-1")


def known(name: str, **configuration: object) -> interpolate.Known:
    return interpolate.Known(
        version="1.0.0",
        configuration=configuration,
        artifacts_path=f"/packages/artifacts/{name}/1.0.0",
        decompressed_path=f"/packages/artifacts-unarchived/{name}/1.0.0",
        work_path=f"/work/{name}",
    )


KNOWN = {
    "A": known(
        "A",
        text="plain",
        number=5,
        float=1.5,
        on=True,
        nothing=None,
        list=["zero", {"b": 1, "a": [2, None]}],
        nested={"key": {"deep": "ä"}},
        **{"a/b": "slash", "Case": "exact", "case": "lower", "trap": "{work:path}"},
    ),
    "B": known("B", text="of B"),
    "C": known("C", text="of C"),
}


def fill(text: str) -> tuple[object, tuple[str, ...]]:
    filled, left = interpolate.lifecycle("A", {"run": text}, KNOWN, SYSTEM, ("B",))
    return filled["run"], left


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{configuration:/text}", "plain"),
        ("x={configuration:/number};", "x=5;"),
        ("{configuration:/float}", "1.5"),
        ("{configuration:/on}", "true"),
        ("{configuration:/nothing}", "null"),
        ("{configuration:/list/0}", "zero"),
        ("{configuration:/list/1}", '{"a":[2,null],"b":1}'),
        ("{configuration:/nested}", '{"key":{"deep":"ä"}}'),
        ("{configuration:/nested/key/deep}", "ä"),
        ("{configuration:/NESTED/Key/deep}", "ä"),
        ("{configuration:/Case}{configuration:/case}", "exactlower"),
        ("{configuration:/a~1b}", "slash"),
        ("{configuration:/trap}", "{work:path}"),
        ("{artifacts:path}", "/packages/artifacts/A/1.0.0"),
        ("{artifacts:decompressedPath}", "/packages/artifacts-unarchived/A/1.0.0"),
        ("{work:path}", "/work/A"),
        ("{kernel:rootPath}", "/root"),
        ("{iot:thingName}", "turbine-1"),
        ("{B:configuration:/text}", "of B"),
        ("{B:artifacts:path}", "/packages/artifacts/B/1.0.0"),
        ("{A:work:path}", "/work/A"),
        ("{B:iot:thingName}", "turbine-1"),
        ("{{configuration:/text}}", "{plain}"),
        ("${X} $X {} {x} {a b:c}", "${X} $X {} {x} {a b:c}"),
        ('{"a": 1} {"a":"b"}', '{"a": 1} {"a":"b"}'),
        ("no variables", "no variables"),
    ],
)
def test_lifecycle_when_a_placeholder_is_known_then_replaced(text: str, result: str) -> None:
    assert fill(text) == (result, ())


@pytest.mark.parametrize(
    "text",
    [
        "{configuration:/newSingleLevelKey}",
        "{configuration:text}",
        "{configuration:/text/deeper}",
        "{configuration:/list/2}",
        "{configuration:/list/-1}",
        "{configuration:/list/one}",
        "{artifacts:Path}",
        "{unknown:path}",
        "{C:configuration:/text}",
        "{D:work:path}",
        "{B:configuration:/nothing}",
    ],
)
def test_lifecycle_when_a_placeholder_leads_nowhere_then_left_and_told(text: str) -> None:
    assert fill(f"echo {text} {text}") == (f"echo {text} {text}", (text,))


def test_lifecycle_when_the_whole_configuration_is_asked_for_then_compact_and_sorted() -> None:
    assert interpolate.lifecycle("B", {"run": "{configuration:}"}, KNOWN, SYSTEM)[0] == {"run": '{"text":"of B"}'}


def test_lifecycle_when_steps_are_nested_then_every_text_but_no_key() -> None:
    steps = {
        "{work:path}": 1,
        "run": {
            "Script": "{work:path}",
            "Timeout": 5,
            "Setenv": {"HOME": "{work:path}", "LIST": ["{work:path}", None]},
        },
    }

    filled, left = interpolate.lifecycle("A", steps, KNOWN, SYSTEM)

    assert filled == {
        "{work:path}": 1,
        "run": {"Script": "/work/A", "Timeout": 5, "Setenv": {"HOME": "/work/A", "LIST": ["/work/A", None]}},
    }
    assert left == ()
    assert steps["run"]["Script"] == "{work:path}"  # type: ignore[index]


def test_lifecycle_when_the_component_itself_is_not_known_then_everything_is_left() -> None:
    assert interpolate.lifecycle("Z", {"run": "{work:path}"}, KNOWN, SYSTEM) == (
        {"run": "{work:path}"},
        ("{work:path}",),
    )
