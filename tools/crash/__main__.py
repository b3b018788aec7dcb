"""`make crash`: everything; ends with 1 and the list of what is wrong."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tools.crash import runner

with tempfile.TemporaryDirectory(prefix="mc") as folder:
    tried, wrong = runner.run(Path(folder))
print(f"{tried} kills and losses of power, {len(wrong)} wrong")
for one in wrong:
    print(f"  {one}")
sys.exit(1 if wrong else 0)
