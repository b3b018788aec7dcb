"""A verb whose package is not installed, for tests/cli/test_command.py."""

from __future__ import annotations

import no_such_package  # type: ignore[import-not-found]

verb = no_such_package
