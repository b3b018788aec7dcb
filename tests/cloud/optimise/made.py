"""Makes every form of a model that may win: `python -m tests.cloud.optimise.made SOURCE FOLDER` tells the digest of each file."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from cloud.optimise import candidates, forms, samples
from tests.cloud.optimise import models


def main() -> None:
    maker = forms.Maker(Path(sys.argv[1]), samples.made({"image": models.images(6)}), Path(sys.argv[2]))
    for form in candidates.FORMS:
        if form.kind == "ort":
            continue  # onnxruntime gives it other bytes in every process; gate.py refuses it
        print(f"{form.name}: {hashlib.sha256(maker.file(form).read_bytes()).hexdigest()}")


if __name__ == "__main__":
    main()
