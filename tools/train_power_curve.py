"""Trains the power-curve models the demo deploys and writes them under components/power_curve_model/.

- 1.0.0: a small regression tree, close to the classic "method of bins" over wind speed.
- 1.1.0: a small neural network; it knows that cold air is denser and bends where the curve bends. Clearly better.
- 1.2.0: 1.1.0's file with 16 of its weights damaged (the exponent's highest bit turned over) *after* the golden samples
  were taken and *before* the digest was: it loads, its digest is right, and only its answers are wrong. It exists so
  that a device can be seen refusing it.

Input `conditions` [-1, 2] float32: wind speed m/s, outdoor temperature °C. Output `power_kw` [-1, 1] float32: what a
turbine of this farm gives in these conditions when nothing is wrong. Learns on January to October 2014 (all four
turbines), is measured on December 2014 to November 2015 (the rows the monitors replay). The same seed and the same
library versions give the same bytes. `reference` in model.json, for drift, is of all rows of these months, healthy or not, as a
monitor sends them. Run it with `make train`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from tools import drift_reference

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "components/power_curve_model"
TRAINING = MODEL / "training/scada_2014.csv.gz"
HELD_OUT = ROOT / "components/turbine_monitor/1.0.0/scada.csv.gz"
FILE = "power_curve.onnx"
SEED = 20140101
OPSET = 17  # onnxruntime 1.18, the oldest we allow, knows it
POWER_SCALE_KW = 2050.0  # rated power: the network learns values near 0..1
GOLDEN = ((3.0, 10.0), (5.0, 10.0), (6.5, -2.0), (6.5, 28.0), (8.0, 10.0), (9.5, 0.0), (11.0, 15.0), (14.0, 5.0))
TOLERANCE = {"absolute": 0.5, "relative": 0.001}  # kW; float32 kernels of other CPUs differ by far less
DAMAGED_WEIGHTS = 16
FORTNIGHT_ROWS = 504  # of the months learned from, which have a row every 40 minutes; monitors see four times as many


def load(path: Path) -> np.ndarray:
    """Complete rows as float64 [n, 4]: power kW, wind speed m/s, pitch °, outdoor °C; broken sensors are left out."""
    with gzip.open(path, "rt", newline="") as text:
        lines = [line[2:] for line in csv.reader(text)][1:]
    rows = np.array([[float(value) for value in line] for line in lines if all(line)])
    return rows[(rows[:, 3] > -40) & (rows[:, 3] < 60)]


def healthy(rows: np.ndarray) -> np.ndarray:
    """Rows of a turbine that does its job: blades in the wind and power within 40 % of the median at its wind speed."""
    power, wind, pitch = rows[:, 0], rows[:, 1], rows[:, 2]
    bins = np.clip((wind / 0.5).astype(int), 0, 39)
    medians = np.array([np.median(power[bins == b]) if (bins == b).any() else 0.0 for b in range(40)])
    expected = medians[bins]
    feathered = (pitch > 2) & (wind > 3) & (wind < 10)
    odd = np.abs(power - expected) > np.maximum(0.4 * np.abs(expected), 40.0)
    return rows[~feathered & ~odd]


def fit_network(conditions: np.ndarray, power: np.ndarray) -> Any:
    """A scaler and a small network that answer in kW (taught in parts of the rated power, then scaled back)."""
    network = MLPRegressor(hidden_layer_sizes=(24, 12), activation="tanh", alpha=1e-5, random_state=SEED, max_iter=400)
    scaler = StandardScaler()
    network.fit(scaler.fit_transform(conditions), power / POWER_SCALE_KW)
    network.coefs_[-1] *= POWER_SCALE_KW
    network.intercepts_[-1] *= POWER_SCALE_KW
    return make_pipeline(scaler, network)


def export(pipeline: Any) -> bytes:
    """The fitted pipeline as ONNX: one input `conditions`, one output `power_kw`, no names that change between runs."""
    model = convert_sklearn(
        pipeline,
        name="power_curve",
        initial_types=[("conditions", FloatTensorType([None, 2]))],
        final_types=[("power_kw", FloatTensorType([None, 1]))],
        target_opset={"": OPSET, "ai.onnx.ml": 3},
    )
    opsets = sorted(model.opset_import, key=lambda opset: opset.domain)  # skl2onnx writes them in the order of a set
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    return model.SerializeToString(deterministic=True)


def answer(model: bytes, conditions: np.ndarray) -> np.ndarray:
    """Power kW [n, 1] of the exported model, as the agent would compute it."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["power_kw"], {"conditions": conditions.astype(np.float32)})[0]


def damage(model: bytes) -> bytes:
    """Turns over the highest exponent bit of the first weights of the largest matrix; no other byte changes."""
    proto = onnx.load_from_string(model)
    largest = max(proto.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    weights = numpy_helper.to_array(largest).astype("<f4").tobytes()
    bits = np.frombuffer(weights, dtype="<u4").copy()
    bits[:DAMAGED_WEIGHTS] ^= np.uint32(0x40000000)
    if model.count(weights) != 1:
        raise ValueError("cannot damage the model: its largest matrix is not found once in the file")
    return model.replace(weights, bits.tobytes())


def describe(version: str, model: bytes, golden_from: bytes) -> dict[str, Any]:
    """The model.json of one version; its golden samples are the answers of `golden_from`."""
    samples = np.array(GOLDEN, dtype=np.float32)
    outputs = answer(golden_from, samples)
    return {
        "name": "power-curve",
        "version": version,
        "file": FILE,
        "sha256": hashlib.sha256(model).hexdigest(),
        "runtime": {"name": "onnxruntime", "minimumVersion": "1.18"},
        "inputs": [{"name": "conditions", "dtype": "float32", "shape": [-1, 2]}],
        "outputs": [{"name": "power_kw", "dtype": "float32", "shape": [-1, 1]}],
        "golden": {
            "tolerance": TOLERANCE,
            "samples": [
                {
                    "inputs": {"conditions": [[round(float(value), 3) for value in given]]},
                    "outputs": {"power_kw": [[round(float(result[0]), 3)]]},
                }
                for given, result in zip(samples, outputs, strict=True)
            ],
        },
    }


def save(version: str, model: bytes, golden_from: bytes, seen: np.ndarray) -> None:
    """Writes one version's folder: the model and its model.json, whose reference is of the conditions `seen`."""
    folder = MODEL / version
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, golden_from, describe(version, golden_from, golden_from))
    reference = drift_reference.write(folder, {"conditions": seen.astype(np.float32)}, FORTNIGHT_ROWS)
    _write(folder, model, {**describe(version, model, golden_from), "reference": reference})


def _write(folder: Path, model: bytes, described: dict[str, Any]) -> None:
    (folder / FILE).write_bytes(model)
    (folder / "model.json").write_text(json.dumps(described, indent=1) + "\n")


def main() -> None:
    """Trains, measures and writes all three versions."""
    seen = load(TRAINING)
    taught, held_out = healthy(seen), healthy(load(HELD_OUT))
    tree = DecisionTreeRegressor(max_leaf_nodes=16, min_samples_leaf=50, random_state=SEED)
    first = export(tree.fit(taught[:, [1, 3]], taught[:, 0]))
    second = export(fit_network(taught[:, [1, 3]], taught[:, 0]))
    broken = damage(second)
    for version, model, golden_from in (("1.0.0", first, first), ("1.1.0", second, second), ("1.2.0", broken, second)):
        save(version, model, golden_from, seen[:, [1, 3]])
        error = np.abs(answer(model, held_out[:, [1, 3]])[:, 0] - held_out[:, 0]).mean()
        print(f"{version}: {len(model):,} bytes, MAE {error:,.1f} kW on {len(held_out):,} held-out rows")


if __name__ == "__main__":
    main()
