"""One API call as the functions of the nouns see it, and their answer.

A function of a noun takes a Call inside an open transaction and returns a JSON-able dict, an Answer, or None (no body).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from cloud.api import errors, services
from cloud.objects import files
from cloud.store import identities, principals

T = TypeVar("T")


class Answer(Struct, frozen=True):
    """`body` may be an iterator of blocks if `headers` has their `content-length`."""

    status: int = 200
    headers: dict[str, str] = {}
    body: bytes | Iterator[bytes] = b""


class Call(Struct, frozen=True, kw_only=True):
    """`path` holds the decoded segments named by the route; header names are in lower case.

    Exactly one of `operator` and `device` is set, none on open routes. `stored` is the body of a streamed upload.
    """

    services: services.Services
    tx: Connection
    now_ms: int
    path: Mapping[str, str]
    query: Mapping[str, tuple[str, ...]]
    headers: Mapping[str, str]
    body: bytes = b""
    operator: identities.AccessKey | None = None
    device: principals.Principal | None = None
    stored: files.Stored | None = None

    def read(self, shape: type[T]) -> T:
        """The JSON body as a record. Raises ValidationException naming the member that does not fit."""
        try:
            given = msgspec.json.decode(self.body or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise errors.validation(
                f"cannot parse the request's body as JSON: {error}", reason="CANNOT_PARSE"
            ) from None
        if isinstance(given, dict):  # some SDKs send null for what is not given
            given = {name: value for name, value in given.items() if value is not None}
        try:
            return msgspec.convert(given, shape)
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at `$")
            name = where.strip("`").lstrip(".")
            raise errors.validation(
                f"cannot take {name or 'the request'}: {what}", [(name, what)] if name else ()
            ) from None

    def first(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return self.query.get(name, (default,))[0]

    def flag(self, name: str) -> bool:
        return self.first(name).lower() == "true"

    def size(self, name: str = "maxResults", default: int = 100, most: int = 250) -> int:
        """The wanted length of a page."""
        text = self.first(name, str(default))
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
            raise errors.validation(f"cannot take {name}={text}: it must be 1 to {most}", [(name, f"1 to {most}")])
        return int(text)

    def after(self, name: str = "nextToken") -> str:
        """Where the wanted page begins: the key of the last row before it, "" for the first page."""
        token = self.first(name)
        try:
            return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
        except ValueError:
            raise errors.validation(
                f"cannot go on from {name} {token!r}: it is not one of ours", [(name, "unknown")]
            ) from None


Operation: TypeAlias = Callable[[Call], "dict[str, Any] | Answer | None"]


def token(key: str) -> str:
    """A page's token from the key of its last row."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def page(
    rows: Sequence[T], limit: int, key: Callable[[T], str], name: str = "nextToken"
) -> tuple[Sequence[T], dict[str, str]]:
    """Cuts rows, of which one more than `limit` was asked for, and gives the answer's token member, if more remain."""
    if len(rows) <= limit:
        return rows, {}
    return rows[:limit], {name: token(key(rows[limit - 1]))}


def slice_page(call: Call, rows: Sequence[T]) -> tuple[Sequence[T], dict[str, str]]:
    """The wanted page of a list that is short enough to be read whole; its token is an offset."""
    text = call.after()
    start = int(text) if text.isascii() and text.isdigit() else 0
    limit = call.size()
    more = {"nextToken": token(str(start + limit))} if len(rows) > start + limit else {}
    return rows[start : start + limit], more


def seconds(ms: int) -> float:
    """A time of the store as the JSON services write it."""
    return ms / 1000
