"""The modules of awscrt, imported when they are first used.

They cost 70 ms and 15 MB: a device without a cloud needs none, and a new process image serves the components first.
"""

from __future__ import annotations

import importlib
from typing import Any


class _Late:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(importlib.import_module(self._name), attribute)
        setattr(self, attribute, found)
        return found


auth: Any = _Late("awscrt.auth")
crypto: Any = _Late("awscrt.crypto")
http: Any = _Late("awscrt.http")
io: Any = _Late("awscrt.io")
mqtt5: Any = _Late("awscrt.mqtt5")
