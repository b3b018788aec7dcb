"""Reads YAML or JSON text to plain values, safely, and finds the line of a key again for error messages.

Rules: only what JSON can say comes out (null, bool, int, float, str, list, dict with text keys); scalars are read by
the YAML 1.2 core schema, so `2020-01-25`, `on` and `22:30` stay text, as in the original's Jackson reader; aliases work
but may not refer to what contains them; a key stands only once in a mapping. Nothing recurses on the input's depth.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from nucleus.core import values

Path = tuple[str | int, ...]

LIMIT_DEPTH = 64
LIMIT_NODES = 200_000  # counted with aliases expanded: guards everything that later walks or encodes the value

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML may be built without libyaml
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,308})|0x[0-9a-fA-F]{1,256}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TAG = "tag:yaml.org,2002:"
_TOO_DEEP = f"it is nested deeper than {LIMIT_DEPTH} levels"


class Unreadable(Exception):  # noqa: N818 - caught by its readers, which add what was being read
    """Raised for text that is not YAML or JSON; `line` counts from 1, 0 means unknown."""

    def __init__(self, why: str, line: int = 0) -> None:
        super().__init__(why)
        self.why = why
        self.line = line


def read(data: bytes) -> Any:
    """The value of one YAML or JSON document. Raises Unreadable."""
    text = _decode(data)
    if text.lstrip().startswith("{"):
        try:
            return _checked(msgspec.json.decode(text))  # JSON's surrogate pairs and tabs are not YAML
        except (msgspec.DecodeError, RecursionError):
            pass  # may be a YAML flow mapping; if not, its reader names the line
    return _Builder(text).build()


def line(data: bytes, path: Path) -> int:
    """The line (from 1) of the key or entry at `path`, or of its nearest parent; 0 if unknown. Reads it all again."""
    try:
        builder = _Builder(_decode(data))
        builder.build()
    except Unreadable:
        return 0
    for length in range(len(path), 0, -1):
        if path[:length] in builder.lines:
            return builder.lines[path[:length]]
    return 0


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable("it is not UTF-8 text", data[: error.start].count(b"\n") + 1) from error


def _checked(value: Any) -> Any:
    """Holds a JSON value to the same depth as YAML."""
    if values.is_deeper(value, LIMIT_DEPTH):
        raise Unreadable(_TOO_DEEP)
    return value


class _Open(Struct):
    """A container being filled; `key` waits for its value, `name` leads to the container from its parent."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    counted: int  # nodes seen before this one
    name: str | int = ""
    key: str | None = None


class _Builder:
    """Builds one document from the parser's events; `lines` maps the path of each node to its line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines: dict[Path, int] = {}
        self._root: Any = None
        self._documents = 0
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}  # value and its number of nodes; filled when complete
        self._nodes = 0

    def build(self) -> Any:
        try:
            for event in yaml.parse(self.text, Loader=_Loader):
                self._take(event, event.start_mark.line + 1 if event.start_mark else 0)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            why = " ".join(part for part in (error.context, error.problem) if part) or "it is not YAML"
            at = mark.line + 1 if mark else 0
            if "maximum nesting depth" in why:  # libyaml >= 0.2.6 has a bound of its own, and looks ahead of the events
                why = _TOO_DEEP
            if at and "".join(self.text.split("\n")[at - 1 : at]).lstrip(" ").startswith("\t"):
                why += "; indent with spaces, not with tabs"
            raise Unreadable(why, at) from error
        except yaml.YAMLError as error:
            raise Unreadable(f"it is not YAML: {error}".splitlines()[0]) from error
        return self._root

    def _take(self, event: yaml.Event, at: int) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise Unreadable("it holds more than one document", at)
            case yaml.CollectionStartEvent():
                self._open(event, at)
            case yaml.CollectionEndEvent():
                done = self._stack.pop()
                self._remember(done.anchor, done.value, done.counted)
            case yaml.ScalarEvent():
                self._scalar(event, at)
            case yaml.AliasEvent():
                self._alias(event, at)

    def _open(self, event: yaml.CollectionStartEvent, at: int) -> None:
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        if event.tag not in (None, "!", f"{_TAG}map", f"{_TAG}seq"):
            raise Unreadable(f"tag {event.tag} cannot be used for a list or a mapping", at)
        counted = self._nodes
        name = self._place(value, at)
        if len(self._stack) >= LIMIT_DEPTH:
            raise Unreadable(_TOO_DEEP, at)
        self._stack.append(_Open(value, event.anchor, counted, name))

    def _scalar(self, event: yaml.ScalarEvent, at: int) -> None:
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            self._key(top, event.value, at)
            self._remember(event.anchor, event.value, self._nodes)
            return
        value = _plain(event, at)
        counted = self._nodes
        self._place(value, at)
        self._remember(event.anchor, value, counted)

    def _key(self, top: _Open, key: str, at: int) -> None:
        if key in top.value:
            raise Unreadable(f'key "{key}" is given twice in one mapping', at)
        top.key = key
        self.lines[(*self._path(), key)] = at

    def _alias(self, event: yaml.AliasEvent, at: int) -> None:
        if event.anchor not in self._anchors:
            raise Unreadable(f"alias *{event.anchor} refers to nothing that is complete before it", at)
        value, nodes = self._anchors[event.anchor]
        self._nodes += nodes
        self._place(value, at)

    def _place(self, value: Any, at: int) -> str | int:
        """Puts a value where it belongs and returns its name there."""
        self._nodes += 1
        if self._nodes > LIMIT_NODES:
            raise Unreadable(f"it has more than {LIMIT_NODES} values", at)
        if not self._stack:
            self._root = value
            return ""
        top = self._stack[-1]
        if isinstance(top.value, list):
            self.lines[(*self._path(), len(top.value))] = at
            top.value.append(value)
            return len(top.value) - 1
        if top.key is None:
            raise Unreadable("a key must be a text, not a list, a mapping or an alias", at)
        name, top.key = top.key, None
        top.value[name] = value
        return name

    def _path(self) -> Path:
        return tuple(container.name for container in self._stack[1:])

    def _remember(self, anchor: str | None, value: Any, counted: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, self._nodes - counted)


def _plain(event: yaml.ScalarEvent, at: int) -> Any:
    text: str = event.value
    tag: str | None = event.tag
    if tag is None and not event.implicit[0]:
        return text  # quoted or a block
    if tag is None:
        return _resolve(text)
    value = text if tag in ("!", f"{_TAG}str") else _resolve(text)
    names = {"int": int, "float": (int, float), "bool": bool, "null": type(None), "str": str}
    kind = names.get(tag.removeprefix(_TAG), str if tag == "!" else ())
    if not isinstance(value, kind):  # type: ignore[arg-type]  # a tuple of types is one, too
        raise Unreadable(f'tag {tag} cannot be used for "{text[:40]}"', at)
    return value


def _resolve(text: str) -> Any:
    """An untagged plain scalar by the YAML 1.2 core schema; what JSON cannot say (.inf, .nan) stays text."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text, 16 if text.startswith("0x") else 10)
    if _FLOAT.fullmatch(text) and not re.fullmatch(r"[-+]?0[0-9]+", text):  # 0755 keeps its zero
        number = float(text)
        return number if abs(number) != float("inf") else text
    return text
