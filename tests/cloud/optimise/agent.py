"""The model agent's own modules, which judge on a device what is made here: they lie flat, as they do there."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

_FOLDER = str(Path(__file__).resolve().parents[3] / "components/model_agent")


def module(name: str) -> Any:
    """A module of components/model_agent."""
    if _FOLDER not in sys.path:
        sys.path.append(_FOLDER)
    return importlib.import_module(name)
