"""Puts the components' folders on the import path: their modules are written to lie beside each other."""

from __future__ import annotations

import sys

from tests.components import parts

for folder in (parts.AGENT, parts.MONITOR):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
