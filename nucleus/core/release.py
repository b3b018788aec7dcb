"""Which release of Marram this is, and the component under whose name the nucleus deploys itself.

Not the version we claim to be in the field's protocols (`core/status.py`): that one is the original's.
"""

from __future__ import annotations

VERSION = "0.1.0"  # the same as in pyproject.toml (a test compares them); the version of COMPONENT that runs here
COMPONENT = "marram.Nucleus"
CLAIMED = "aws.greengrass.Nucleus"  # the component whose configuration is ours, and whose version we claim to be
COMPONENT_TYPE = "aws.greengrass.nucleus"
