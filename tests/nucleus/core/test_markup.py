"""YAML and JSON to plain values: what scalars mean, what is refused, and where keys stand."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nucleus.core import markup

texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), texts
)
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("0x1f", 31),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("yes", "yes"),
        ("2020-01-25", "2020-01-25"),
        ("12:30", "12:30"),
        ("0755", "0755"),
        ("1.0.0", "1.0.0"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("! 1", "1"),
        ("!!int 7", 7),
        ("!!float 7", 7),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1_000", "1_000"),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("<<", "<<"),
    ],
)
def test_read_when_a_scalar_stands_alone_then_by_the_core_schema(text: str, value: Any) -> None:
    found = markup.read(f"key: {text}\n".encode())["key"]

    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "why", "line"),
    [
        ("a: 1\na: 2", "given twice", 2),
        ("[" * 100_000, "deeper than 64", 1),
        ("{" * 40, "a key must be a text", 1),
        ("{" * 100_000, "a key must be a text|deeper than 64", 1),  # libyaml 0.2.5 and 0.2.6 say the one and the other
        ('{"a":' * 100_000, "deeper than 64", 1),
        ('{"a":' * 100 + "1" + "}" * 100, "deeper than 64", 0),
        ("a: *b", "refers to nothing", 1),
        ("a: &a\n  - *a", "refers to nothing", 2),
        ("a: !!python/object:os.system x", "cannot be used", 1),
        ("a: !!set {x}", "cannot be used", 1),
        ("a: !!binary aGk=", "cannot be used", 1),
        ("a: !!int x", "cannot be used", 1),
        ("? [a]\n: b", "a key must be a text", 1),
        ("a: b: c", "not allowed", 1),
        ("---\na: 1\n---\nb: 2", "more than one document", 3),
        ("a: 1\n\tb: 2", "not with tabs", 2),
        ("a: \x01", "not YAML", 0),
        ("- a\n" * 200_001, "more than 200000 values", 200_000),
    ],
)
def test_read_when_it_is_not_plain_then_says_why_and_where(text: str, why: str, line: int) -> None:
    with pytest.raises(markup.Unreadable, match=why) as caught:
        markup.read(text.encode())

    assert caught.value.line == line


def test_read_when_not_utf8_then_names_the_line() -> None:
    with pytest.raises(markup.Unreadable, match="UTF-8") as caught:
        markup.read(b"a: 1\nb: \xff\n")

    assert caught.value.line == 2


def test_read_when_aliases_are_used_then_their_values() -> None:
    assert markup.read(b"a: &x {d: [1]}\nb: *x\n") == {
        "a": {"d": [1]},
        "b": {"d": [1]},
    }


def test_line_when_the_path_exists_then_where_its_key_stands() -> None:
    data = b"# comment\na:\n  - b: 1\n    c: 2\n  - x\nd: {e:\n  f}\n"

    assert markup.line(data, ("a", 0, "c")) == 4
    assert markup.line(data, ("a", 1)) == 5
    assert markup.line(data, ("d", "e")) == 6
    assert markup.line(data, ("a", 1, "nothing", "here")) == 5
    assert markup.line(data, ("elsewhere",)) == 0
    assert markup.line(b"a: [", ("a",)) == 0


@given(documents)
def test_read_when_written_as_json_then_the_same_value(value: Any) -> None:
    assert markup.read(json.dumps({"value": value}).encode()) == {"value": value}
    assert markup.read(json.dumps({"value": value}, ensure_ascii=False).encode()) == {"value": value}


class _Writer(yaml.SafeDumper):
    """Quotes every text: PyYAML leaves YAML 1.2's numbers bare (`0E0`), because in YAML 1.1 they are text."""


_Writer.add_representer(str, lambda writer, text: writer.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@given(documents)
def test_read_when_written_as_yaml_then_the_same_value(value: Any) -> None:
    written = yaml.dump({"value": value}, Dumper=_Writer, allow_unicode=True)

    assert markup.read(written.encode()) == {"value": value}


@given(st.binary(max_size=200))
def test_read_when_any_bytes_then_a_value_or_unreadable(data: bytes) -> None:
    try:
        json.dumps(markup.read(data))
    except markup.Unreadable as error:
        assert error.why  # noqa: PT017
