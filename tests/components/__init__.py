"""Tests of the components; their modules are written to lie beside each other, so their folders go on the import path."""

from __future__ import annotations

import sys
from pathlib import Path

_COMPONENTS = Path(__file__).resolve().parents[2] / "components"
for _folder in ("model_agent", "turbine_monitor/1.0.0", "vision"):
    if str(_COMPONENTS / _folder) not in sys.path:
        sys.path.append(str(_COMPONENTS / _folder))
