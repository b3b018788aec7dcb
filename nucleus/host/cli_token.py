"""The file by which the command line of the daemon's user proves itself (spec/nucleus.md 8.1)."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from nucleus.host import files, places


def write(where: places.Places, socket: Path) -> dict[str, str]:
    """Makes a new token; returns it with the identity it stands for. Whoever may read the file may use it: mode 0600."""
    token = secrets.token_hex(16).upper()
    user = os.getuid()
    files.make_directory(where.cli_tokens, 0o755)
    body = {"cli_auth_token": token, "domain_socket_path": str(socket)}
    files.write_durably(where.cli_tokens / f"user-{user}", json.dumps(body).encode(), 0o600)
    return {token: f"greengrass-cli#user-{user}"}
