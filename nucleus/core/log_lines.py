"""Lines of log files: reading them, in both forms, and choosing by filter and time window.

The forms are those of spec/nucleus.md 9.2; filters and windows mean what greengrass-cli means by them: alternatives of one
argument are joined by commas, several arguments must all hold; any one window will do.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
KEYS = ("level", "thread", "logger", "event", "message")  # beside the names of a line's own fields

_TEXT = re.compile(
    r"(?P<at>\d{4}-\d\d-\d\dT\S+) \[(?P<level>[A-Z]+)\] \((?P<thread>[^)]*)\) (?P<logger>[^:]*): (?P<rest>.*)",
    re.DOTALL,
)
_FIELDS = re.compile(r" \{(?P<fields>[^{}]*)\}$")
_OFFSET = re.compile(r"[+-]?(\d+(d|days?|h|hrs?|hours?|m|min|minutes?|s|sec|seconds?))+")
_PART = re.compile(r"(\d+)([a-z]+)")
_UNIT_S = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_NAMES = {"loggername": "logger", "eventtype": "event", "component": "logger"}


class Line(Struct, frozen=True):
    """One line; `at_ms` is -1 for a line without a time of its own (a stack, a foreign form)."""

    text: str
    at_ms: int = -1
    known: Mapping[str, str] = {}

    def told(self) -> str:
        """The line in the form for people."""
        if not self.text.startswith("{") or not self.known:
            return self.text
        at = datetime.datetime.fromtimestamp(self.at_ms / 1000, datetime.UTC).isoformat(timespec="milliseconds")
        known = self.known
        fields = ", ".join(f"{key}={value}" for key, value in known.items() if key not in KEYS)
        event = ". ".join(one for one in (known["event"], known["message"]) if one)
        context = f" {{{fields}}}" if fields else ""
        head = f"{at.replace('+00:00', 'Z')} [{known['level']}] ({known['thread']}) {known['logger']}: "
        return f"{head}{event}.{context}"


def read(text: str) -> Line:
    """Reads one line without its end; what cannot be understood is only its text."""
    return _read_json(text) if text.startswith("{") else _read_text(text)


def chosen(line: Line, filters: Sequence[str], windows: Sequence[tuple[int, int]]) -> bool:
    """Whether the line passes every filter and lies in one of the windows (ms, both ends included)."""
    if windows and not any(start <= line.at_ms <= end for start, end in windows):
        return False
    return all(any(_matches(line, one) for one in each.split(",")) for each in filters)


def window(text: str, now: datetime.datetime) -> tuple[int, int]:
    """Reads `<begin>,<end>`; an end left out is now. Raises ValueError with a sentence. `now` is aware."""
    begin, comma, end = text.partition(",")
    if not comma:
        raise ValueError(f"{text!r} is not <begin>,<end>; either may be left out, the comma not")
    found = _moment(begin.strip(), now), _moment(end.strip(), now)
    if found[0] > found[1]:
        raise ValueError(f"{text!r} begins after its end")
    return found


def _moment(text: str, now: datetime.datetime) -> int:
    if not text:
        return _ms(now)
    if _OFFSET.fullmatch(text):
        seconds = sum(int(number) * _UNIT_S[unit[0]] for number, unit in _PART.findall(text))
        return _ms(now + datetime.timedelta(seconds=-seconds if text.startswith("-") else seconds))
    try:
        if ":" in text and not re.match(r"\d{4}-?\d\d-?\d\d", text):  # a time of today
            return _ms(datetime.datetime.combine(now.date(), datetime.time.fromisoformat(text), now.tzinfo))
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        what = "is no time; write 2020-06-30, 15:30:45, 2020-06-30T15:30:45Z or an offset such as -2h15min"
        raise ValueError(f"{text!r} {what}") from None
    return _ms(found if found.tzinfo else found.replace(tzinfo=now.tzinfo))


def _ms(moment: datetime.datetime) -> int:
    return round(moment.timestamp() * 1000)


def _read_text(text: str) -> Line:
    match = _TEXT.fullmatch(text)
    if match is None:
        return Line(text)
    try:
        at_ms = _ms(datetime.datetime.fromisoformat(match["at"]))
    except ValueError:
        return Line(text)
    rest, fields = match["rest"], {}
    found = _FIELDS.search(rest)
    if found is not None:
        rest = rest[: found.start()]
        pairs = (one.partition("=") for one in found["fields"].split(", "))
        fields = {key.strip(): value for key, equals, value in pairs if equals}
    event, _, message = rest.partition(". ")
    own = {"level": match["level"], "thread": match["thread"], "logger": match["logger"]}
    return Line(text, at_ms, {**fields, **own, "event": event.rstrip("."), "message": message})


def _read_json(text: str) -> Line:
    try:
        found = json.loads(text)
        at_ms = int(found["timestamp"])
        contexts = {str(key): str(value) for key, value in (found.get("contexts") or {}).items()}
        named = {"logger": "loggerName", "event": "eventType"}
        own = {key: str(found.get(named.get(key, key)) or "") for key in KEYS}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Line(text)
    return Line(text, at_ms, {**contexts, **own})


def _matches(line: Line, wanted: str) -> bool:
    """One alternative: `key=value` (a level: that or a higher one), or a word or regular expression anywhere."""
    key, equals, value = wanted.strip().partition("=")
    name = _NAMES.get(key.lower(), key)
    if equals and name == "level" and value.upper() in LEVELS:
        return _rank(line.known.get("level", "")) >= _rank(value.upper())
    if equals and name in line.known:
        return line.known[name] == value
    try:
        return re.search(wanted.strip(), line.text) is not None
    except re.error:
        return wanted.strip() in line.text


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else -1
