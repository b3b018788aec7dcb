"""What `marram` returns to its caller: the exit codes (README, Exit codes) and the one error that carries one."""

from __future__ import annotations

OK = 0
ERROR = 1  # the command could not be carried out, wrong usage included
UNSATISFIED = 2  # accepted, but the wish did not come true on every device
ROLLED_BACK = 3
TIMED_OUT = 4
NOT_AUTHORISED = 5


class Failure(Exception):  # noqa: N818 it ends a command, not always by an error
    """Ends the command: the message goes to the error output, the code to the caller."""

    def __init__(self, message: str, code: int = ERROR) -> None:
        super().__init__(message)
        self.code = code
