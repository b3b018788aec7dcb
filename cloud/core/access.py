"""AWS IoT policies: whether the documents attached to a principal allow an action on a resource.

Rules (AWS IoT developer guide, "AWS IoT Core policies"): nothing is allowed unless a statement allows it, and an
explicit Deny wins. `*` stands for any text and `?` for one character, in actions and in resources; MQTT's own wildcards
in a policy mean themselves. `${name}` is replaced by the connection's variable, character for character; a variable
without a value matches nothing.

A subscription is allowed only if the grant includes all it could deliver: `+` and `#` of the wanted filter are matched
by `*` or by themselves, never by `?`. Regions and accounts of ARNs are not compared: a service has one of each.
Conditions: Bool, StringEquals, StringLike; a statement with any other never allows and, if it denies, always denies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

THING_NAME = "iot:Connection.Thing.ThingName"
IS_ATTACHED = "iot:Connection.Thing.IsAttached"
CLIENT_ID = "iot:ClientId"

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_STAR = re.compile(r"(?<!\$\{)\*")  # `${*}` is AWS's way to write the character itself
_QUESTION = re.compile(r"(?<!\$\{)\?")


class Pattern(msgspec.Struct, frozen=True):
    """A text cut at each `*`; `single` when it also has a `?`, `variable` when a `${name}` must be replaced first."""

    pieces: tuple[str, ...]
    single: bool
    variable: bool


class Statement(msgspec.Struct, frozen=True):
    """One statement; resources are patterns of (service, tail), conditions are (operator, key, wanted values)."""

    allow: bool
    actions: tuple[Pattern, ...]
    resources: tuple[tuple[Pattern, Pattern], ...]
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]


class Policy(msgspec.Struct, frozen=True):
    """What `compile` makes of all documents of one principal."""

    statements: tuple[Statement, ...]


class Grants:
    """A policy bound to one connection's variables; remembers its answers, because devices repeat their topics."""

    __slots__ = ("_answers", "_policy", "_variables")

    _REMEMBERED = 32

    def __init__(self, policy: Policy, variables: Mapping[str, str]) -> None:
        self._policy = policy
        self._variables = variables
        self._answers: dict[tuple[str, str], bool] = {}

    def same(self, policy: Policy, variables: Mapping[str, str]) -> bool:
        """Whether it was made of this very policy and these variables."""
        return self._policy is policy and self._variables == variables

    def allows(self, action: str, resource: str) -> bool:
        """`resource` is `topic/…`, `topicfilter/…`, `client/…` or the tail of another ARN."""
        key = (action, resource)
        answer = self._answers.get(key)
        if answer is None:
            if len(self._answers) >= self._REMEMBERED:
                self._answers.clear()
            answer = self._answers[key] = allows(self._policy, action, resource, self._variables)
        return answer


def compile(documents: Sequence[dict[str, Any]]) -> Policy:  # noqa: A001 - the contract's word; used as access.compile
    """Reads policy documents; raises ValueError naming the statement that is not valid."""
    statements = []
    for document in documents:
        listed = document.get("Statement")
        for index, each in enumerate(listed if isinstance(listed, list) else [listed]):
            statements.append(_statement(each, index))
    return Policy(tuple(statements))


def allows(policy: Policy, action: str, resource: str, variables: Mapping[str, str]) -> bool:
    """Whether the policy allows the action; for many questions of one connection use `Grants`."""
    allowed = False
    for statement in policy.statements:
        if statement.allow and allowed:
            continue
        if not _applies(statement, action, resource, variables):
            continue
        if not statement.allow:
            return False
        allowed = True
    return allowed


def _statement(raw: Any, index: int) -> Statement:
    if not isinstance(raw, dict) or raw.get("Effect") not in ("Allow", "Deny"):
        raise ValueError(f"cannot read policy: statement {index} has no Effect Allow or Deny")
    actions = _texts(raw.get("Action"), f"Action of statement {index}")
    resources = _texts(raw.get("Resource"), f"Resource of statement {index}")
    conditions = raw.get("Condition") or {}
    if not isinstance(conditions, dict) or not all(isinstance(each, dict) for each in conditions.values()):
        raise ValueError(f"cannot read policy: Condition of statement {index} is not an object of objects")
    return Statement(
        raw["Effect"] == "Allow",
        tuple(_pattern(each.lower()) for each in actions),
        tuple(_split_arn(each) for each in resources),
        tuple((operator, key, _values(want)) for operator, tests in conditions.items() for key, want in tests.items()),
    )


def _texts(raw: Any, what: str) -> tuple[str, ...]:
    listed = raw if isinstance(raw, list) else [raw]
    if not listed or not all(isinstance(each, str) for each in listed):
        raise ValueError(f"cannot read policy: {what} is not a string or a list of strings")
    return tuple(listed)


def _values(want: Any) -> tuple[str, ...]:
    listed = want if isinstance(want, list) else [want]
    return tuple(str(each).lower() if isinstance(each, bool) else str(each) for each in listed)


def _split_arn(resource: str) -> tuple[Pattern, Pattern]:
    """Service and tail of a resource; a pattern cut short by `*` covers everything behind it."""
    parts = resource.split(":", 5)
    if len(parts) == 6:
        return _pattern(parts[2]), _pattern(parts[5])
    service = parts[2] if len(parts) > 2 else "*"
    return _pattern(service), _pattern("*" if resource.endswith("*") else "")


def _pattern(text: str) -> Pattern:
    return Pattern(tuple(_STAR.split(text)), _QUESTION.search(text) is not None, "${" in text)


def _applies(statement: Statement, action: str, resource: str, variables: Mapping[str, str]) -> bool:
    if not any(_matches(each, action.lower(), variables) for each in statement.actions):
        return False
    # A thing is a resource of AWS IoT whoever acts on it, e.g. greengrass:VerifyClientDeviceIoTCertificateAssociation.
    service = "iot" if resource.startswith("thing/") else action.partition(":")[0]
    # A Deny reaches further than an Allow: there `?` covers a wildcard of MQTT as well.
    included = statement.allow and resource.startswith("topicfilter/")
    if not any(
        _matches(of_service, service, variables) and _matches(tail, resource, variables, included=included)
        for of_service, tail in statement.resources
    ):
        return False
    return all(_holds(each, variables, unknown=not statement.allow) for each in statement.conditions)


def _matches(pattern: Pattern, text: str, variables: Mapping[str, str], *, included: bool = False) -> bool:
    """`included`: the text is a topic filter, and what it covers must lie inside the pattern."""
    if pattern.single:
        one = "[^+#]" if included else "."
        expression = ".*".join(_expression(each, variables, one) for each in pattern.pieces)
        return re.fullmatch(expression, text, re.DOTALL) is not None
    if pattern.variable and any(_missing(each, variables) for each in pattern.pieces):
        return False
    pieces = [_replace(each, variables) for each in pattern.pieces] if pattern.variable else pattern.pieces
    if len(pieces) == 1:
        return text == pieces[0]
    first, *middle, last = pieces
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _expression(piece: str, variables: Mapping[str, str], one: str) -> str:
    """The regular expression of a piece with `?`; a missing variable becomes what matches nothing."""
    if _missing(piece, variables):
        return "(?!)"
    return one.join(re.escape(_replace(each, variables)) for each in _QUESTION.split(piece))


def _missing(piece: str, variables: Mapping[str, str]) -> bool:
    return any(name not in "*?$" and not variables.get(name) for name in _VARIABLE.findall(piece))


def _replace(piece: str, variables: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: variables.get(found[1], found[1]), piece)


def _holds(condition: tuple[str, str, tuple[str, ...]], variables: Mapping[str, str], *, unknown: bool) -> bool:
    operator, key, wanted = condition
    value = variables.get(key, "")
    match operator:
        case "Bool":
            return (value or "false") in wanted
        case "StringEquals":
            return value != "" and value in wanted
        case "StringLike":
            return value != "" and any(_matches(_pattern(each), value, variables) for each in wanted)
    return unknown
