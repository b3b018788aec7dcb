"""Where things lie below the nucleus's root folder (spec/nucleus.md 9.1)."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from msgspec import Struct

SOCKET_PATH_LIMIT = 107  # bytes of sun_path without its closing zero


class Places(Struct, frozen=True):
    """Paths of one nucleus, all below `root` (absolute)."""

    root: Path

    def work(self, component: str) -> Path:
        return self.root / "work" / component

    def artifacts(self, component: str, version: str) -> Path:
        return self.root / "packages" / "artifacts" / component / version

    def unarchived(self, component: str, version: str) -> Path:
        return self.root / "packages" / "artifacts-unarchived" / component / version

    def recipe(self, component: str, version: str) -> Path:
        """`<base64url of SHA-256(name)>@<version>.recipe.yaml`, as the original names it."""
        digest = base64.urlsafe_b64encode(hashlib.sha256(component.encode()).digest()).decode().rstrip("=")
        return self.root / "packages" / "recipes" / f"{digest}@{version}.recipe.yaml"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def deployments(self) -> Path:
        return self.root / "deployments"

    @property
    def socket(self) -> Path:
        return self.root / "ipc.socket"

    @property
    def cli_tokens(self) -> Path:
        return self.root / "cli_ipc_info"

    @property
    def processes(self) -> Path:
        """Facts about started processes, read at launch to end survivors (design.md 4.3)."""
        return self.root / "run"
