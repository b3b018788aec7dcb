"""A model that doubles numbers by looking them up, and a device whose agent serves it: for gates and trials."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import model_client
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.components import parts

ALIAS = "numbers"
TABLE = 100


def table(folder: Path, version: str, values: Any, work: int = 0) -> Path:
    """A model that looks numbers up (x -> values[x], an error beyond the end) and multiplies `work` matrices meanwhile."""
    folder.mkdir(parents=True)
    nodes = [
        helper.make_node("Cast", ["x"], ["at"], to=TensorProto.INT64),
        helper.make_node("Gather", ["values", "at"], ["found"]),
    ]
    constants = {"values": np.array(values, np.float32), "none": np.zeros(1, np.float32)}
    last = "none"
    if work:
        constants["m0"] = np.full((400, 400), 1e-3, np.float32)
        nodes.append(helper.make_node("Mul", ["m0", "x"], ["n0"]))  # or it would be computed once and kept
        nodes += [helper.make_node("MatMul", [f"n{at}", "m0"], [f"n{at + 1}"]) for at in range(work)]
        nodes.append(helper.make_node("ReduceMin", [f"n{work}"], ["least"], keepdims=0))
        nodes.append(helper.make_node("Mul", ["least", "none"], ["nothing"]))
        last = "nothing"
    nodes.append(helper.make_node("Add", ["found", last], ["y"]))
    given, answered = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y"))
    kept = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "table", [given], [answered], kept)
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    (folder / "table.onnx").write_bytes(data)
    described = {
        "name": ALIAS,
        "version": version,
        "file": "table.onnx",
        "sha256": hashlib.sha256(data).hexdigest(),
        "runtime": {"name": "onnxruntime"},
        "inputs": [{"name": "x", "dtype": "float32", "shape": [1]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [1]}],
        "golden": {
            "tolerance": {"absolute": 1e-3, "relative": 0},
            "samples": [{"inputs": {"x": [0]}, "outputs": {"y": [float(values[0])]}}],
        },
    }
    (folder / "model.json").write_text(json.dumps(described))
    return folder


class Scene:
    """A device whose agent serves 1.0.0, which doubles numbers below TABLE."""

    def __init__(self, device: parts.Device, **settings: Any) -> None:
        self.device = device
        self.agent = device.start_agent()
        self.client = model_client.Client(str(device.socket))
        self.asked = 0
        done = self.offer("1.0.0", self.model("1.0.0"), **settings)
        assert done.returncode == 0, done.stderr

    def model(self, version: str, wrong: int = 0, length: int = TABLE, work: int = 0) -> Path:
        """A version that is wrong about the first `wrong` numbers but 0, and knows only `length` of them."""
        values = [2.0 * x + (0 < x <= wrong) for x in range(length)]
        return table(self.device.root / f"offered-{version}", version, values, work)

    def offer(self, version: str, folder: Path, **settings: Any) -> Any:
        more = ("--artifacts", folder, "--settings", json.dumps(settings))
        return self.device.hand_over("offer", version, *more)

    def ask(self, count: int = 1) -> Counter[str]:
        """Asks for the next numbers; returns how often each version did."""
        versions: Counter[str] = Counter()
        for _ in range(count):
            x = self.asked * 37 % TABLE  # each once, no two neighbours alike
            self.asked += 1
            answer = self.client.predict(ALIAS, {"x": np.array([x], np.float32)}, deadline_s=20)
            assert answer.outputs["y"][0] - 2 * x in (0.0, 1.0)
            versions[str(answer.version)] += 1
        return versions

    def trials(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = parts.ask(self.device, {"op": "trial", "alias": ALIAS})["trials"]
        return found

    def ended(self, *, asking: int = 5) -> dict[str, Any]:
        """The latest trial, once it has ended; requests go on meanwhile."""

        def over() -> Any:
            self.ask(asking)
            return [each for each in self.trials() if each["outcome"] != "running"]

        found: dict[str, Any] = parts.until(over, "the trial to end")[0]
        return found

    def begun(self) -> None:
        parts.until(self.trials, "the trial to begin")

    def row(self) -> dict[str, Any]:
        return parts.serving(self.device)[0]

    def close(self) -> None:
        self.client.close()
