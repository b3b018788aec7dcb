"""Writes the section `reference` of a model.json from data.

    python -m tools.drift_reference MODEL_FOLDER SAMPLES.npz [--window N]

SAMPLES.npz has one array for each input of the model, items along the first axis (numpy.savez). The model answers them, 256
at a time (one at a time if its first axis is fixed), so that what it says is watched, too. With `--window` (the
`windowSamples` of the settings to come) the items must be in the order in which they came; that is what a stream wants that
moves slowly, as weather does (components/README.md, Drift). Sign the component afterwards: model.json has changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tools import vision_models

BATCH = 256
Array = np.ndarray[Any, Any]


def write(folder: Path, data: dict[str, Array], window: int = 0) -> dict[str, Any]:
    """Adds the section to folder/model.json and returns it. Raises ValueError for data that does not fit the model."""
    check = vision_models.component_module("agent_check", "model_agent")
    drift = vision_models.component_module("agent_drift", "model_agent")
    path = folder / "model.json"
    described = json.loads(path.read_bytes())
    manifest = check.read_manifest(path.read_bytes())
    model = check.load(manifest, (folder / manifest.file).read_bytes())
    inputs = {
        tensor.name: np.asarray(data[tensor.name], tensor.dtype) for tensor in manifest.inputs if tensor.name in data
    }
    missing = [tensor.name for tensor in manifest.inputs if tensor.name not in data]
    counts = {len(array) for array in inputs.values()}
    if missing or len(counts) != 1:
        raise ValueError(f"cannot use the data: it needs {', '.join(missing) or 'equally many items'} for every input")
    (count,) = counts
    batch = BATCH if all(tensor.shape[:1] == (-1,) for tensor in manifest.inputs) else 1
    answers = [
        model.predict({name: array[start : start + batch] for name, array in inputs.items()})
        for start in range(0, count, batch)
    ]
    outputs = {tensor.name: np.concatenate([each[tensor.name] for each in answers]) for tensor in manifest.outputs}
    described["reference"] = drift.reference(inputs, outputs, window=window)
    drift.read_reference(described["reference"])
    path.write_text(json.dumps(described, indent=1) + "\n")
    return dict(described["reference"])


def main(arguments: list[str]) -> int:
    """Reads the command line and does it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="drift_reference", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--window", type=int, default=0, help="windowSamples; the data is in order")
    given = parser.parse_args(arguments)
    try:
        with np.load(given.samples, allow_pickle=False) as data:
            made = write(given.folder, dict(data), given.window)
    except (OSError, ValueError, KeyError) as error:
        print(f"cannot write the reference of {given.folder}: {error}", file=sys.stderr)
        return 1
    features = {name: len(columns) for kind in made.values() for name, columns in kind.items()}
    print(
        f"{given.folder}/model.json has a reference of {', '.join(f'{name} ({n})' for name, n in features.items())} now"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
