"""Who may change what the agent serves: callers are known by their component's token, or by their user.

A component changes only what is its own. It presents the token that the nucleus gave to it (SVCUID), and the agent asks the
nucleus whose it is (ValidateAuthorizationToken; Marram's nucleus adds `componentName` for the agent). What was found out is
kept for KEPT_S, and while the nucleus cannot be reached. Asking for predictions, and reading, never come here.

What belongs to the device rather than to a component (ending a hold, a bundle from a foreign OTA) is for local users: root
and the agent's own user, told by the kernel (SO_PEERCRED). A component may end the hold of an alias that it owns, too.

A nucleus that does not say whose a token is (a Greengrass nucleus lets the stream manager ask alone), an agent that was
started by hand, or `callers: sameUser` leave only the user to go by; the log says so once.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

TOKEN_VARIABLE = "SVCUID"  # noqa: S105 the name of a variable
TOKEN, SAME_USER = "token", "sameUser"
POLICIES = (TOKEN, SAME_USER)
KEPT_S = 60.0
KEPT_LIMIT = 256
ASK_S = 5.0  # how long the nucleus may take
OF_COMPONENTS = frozenset({"offer", "release", "withdraw"})  # their header names the component that they are for
OF_ALIASES = frozenset({"release_hold"})  # for the owner of the alias that their header names, too
OPEN = frozenset({"capture", "trial", "observed"})  # change nothing that is served: for whoever may open the socket
OF_THE_AGENT = frozenset({"take_over"})  # only for another process of this component
_LONGEST_TOKEN = 1024
# What a nucleus answers that does not let the agent ask, or does not know the operation.
_NOT_FOR_US = frozenset({"UnauthorizedError", "UnsupportedOperation", "ServiceError"})
_UNKNOWN_TOKEN = frozenset({"InvalidTokenError", "InvalidArgumentsError"})


class IdentityError(Exception):
    """`code` is UNAUTHENTICATED, PERMISSION_DENIED, or BUSY while the nucleus cannot be asked (ask again)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Callers:
    """Judges requests; may be called by many threads. `owner` names the component that an alias belongs to, "" for none.

    `ask` says whose a token is (`nucleus_says`); None for an agent that was started by hand.
    """

    def __init__(
        self,
        owner: Callable[[str], str],
        ask: Callable[[str], str | None] | None,
        policy: str = TOKEN,
        own_token: str = "",
    ) -> None:
        self._owner = owner
        self._ask = ask if policy == TOKEN else None
        self._own_token = own_token
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[str, float]] = {}
        self._told: set[str] = set()
        if ask is not None and policy == SAME_USER:
            self._tell("callers are known by their user only, because the configuration says so (callers: sameUser)")

    def may(self, verb: str, header: Mapping[str, Any], connection: socket.socket) -> None:
        """Raises IdentityError unless who is at the other end of `connection` may do this."""
        if verb in OPEN:
            return
        token = header.get("token", "")
        if not isinstance(token, str) or len(token) > _LONGEST_TOKEN:
            raise IdentityError("UNAUTHENTICATED", f"cannot {verb}: the token must be a text")
        if self._ask is None or (not token and verb not in OF_COMPONENTS | OF_THE_AGENT):
            self._same_user(verb, connection)
            return
        if not token:
            raise IdentityError(
                "UNAUTHENTICATED",
                f"cannot {verb}: send the token of your component ({TOKEN_VARIABLE} in its environment)",
            )
        caller = self.component(token)
        if caller is None:
            self._same_user(verb, connection)
            return
        wanted = self._wanted(verb, header)
        if caller != wanted:
            raise IdentityError(
                "PERMISSION_DENIED", f"cannot {verb}: this is {wanted or 'nobody'}'s; the token is {caller}'s"
            )

    def component(self, token: str) -> str | None:
        """The component that has `token`; None if this nucleus does not say. Raises IdentityError."""
        key = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        name, at = self._known.get(key, ("", 0.0))
        if name and time.monotonic() - at < KEPT_S:
            return name
        if self._ask is None:
            return None
        try:
            found = self._ask(token)
        except ConnectionError as error:
            if name:
                return name
            raise IdentityError("BUSY", f"cannot ask the nucleus whose token this is: {error}; try again") from error
        except LookupError as error:
            with self._lock:
                self._known.pop(key, None)
            raise IdentityError("UNAUTHENTICATED", "no component of this device has this token") from error
        if found is None:
            self._tell("the nucleus does not say whose a token is: callers are known by their user only")
            return None
        with self._lock:
            while len(self._known) >= KEPT_LIMIT:
                self._known.pop(next(iter(self._known)))
            self._known[key] = (found, time.monotonic())
        return found

    def known(self, token: str) -> bool:
        """Whether the nucleus says that a component of this device has `token`; the doors' callers need no more."""
        try:
            return bool(token) and len(token) <= _LONGEST_TOKEN and self.component(token) is not None
        except IdentityError:
            return False

    def _wanted(self, verb: str, header: Mapping[str, Any]) -> str:
        """Whose token the request needs."""
        if verb in OF_COMPONENTS:
            return str(header.get("component", ""))
        if verb in OF_THE_AGENT:
            return (self.component(self._own_token) or "") if self._own_token else ""
        return self._owner(str(header.get("alias", ""))) if verb in OF_ALIASES else ""

    def _same_user(self, verb: str, connection: socket.socket) -> None:
        uid = peer_user(connection)
        if uid not in (0, os.geteuid()):
            raise IdentityError(
                "PERMISSION_DENIED", f"cannot {verb}: user {uid} may not; be root or the agent's user ({os.geteuid()})"
            )

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            print(line, flush=True)


def peer_user(connection: socket.socket) -> int:
    """The user id of the process that connected, as the kernel keeps it."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def nucleus_says(token: str) -> str | None:
    """Asks the nucleus whose token this is; None if it does not say that to us.

    Raises LookupError for nobody's, ConnectionError while it cannot be asked.
    """
    # Only here: the file is put beside this one when the component is published (design.md 4.2).
    marram_ipc: Any = importlib.import_module("marram_ipc")
    try:
        with marram_ipc.Client(timeout_s=ASK_S) as nucleus:
            answer = nucleus.call("ValidateAuthorizationToken", {"token": token})
    except marram_ipc.IPCError as error:
        if error.code in _NOT_FOR_US:
            return None
        if error.code in _UNKNOWN_TOKEN:
            raise LookupError("the nucleus does not know it") from error
        raise ConnectionError(str(error)) from error
    return str(answer["componentName"]) if answer.get("componentName") else None


def callers(listed: Callable[[], list[dict[str, Any]]], policy: str = TOKEN) -> Callers:
    """Callers of an agent with this process's environment; `listed` has a row for each alias (Aliases.listed)."""
    own = os.environ.get(TOKEN_VARIABLE, "")

    def owner(alias: str) -> str:
        return next((str(each["component"]) for each in listed() if each["alias"] == alias), "")

    return Callers(owner, nucleus_says if own else None, policy, own)
