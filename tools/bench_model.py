"""Measures the model agent's doors against a direct session.run, in one run: `make bench BENCH=model`.

Method: a model that reads every element of its input and answers one number, so that what a door costs is nearly all
there is; input of 150 KB and 1 MB (FP32). One agent process with every door, one client process
(tools/bench_model_client.py) with the doors' own clients, which also holds the direct session; rounds of a few calls
from each in turn, so that a loud minute of the machine meets all of them. A call is what an application writes: array
in, array out. Figures are medians; the overhead is the median of a door less that of the direct call, the ratio is
between them. The floors are the least that another process, two copies and a socket or gRPC cost here
(tools/bench_model_floor.py); Edge Manager's doors speak gRPC, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools import system

REPOSITORY = Path(__file__).parents[1]
SIZES = {"150 KB": 150 * 1024, "1 MB": 1024 * 1024}
ALIAS = "bench"
_OURS = {"marram_ipc.py": "nucleus/ipc/client.py", "marram_signing.py": "nucleus/core/signing.py"}


def measure() -> list[tuple[str, str, str]]:
    """Rows of `make bench`: for each size the direct call, then each door."""
    edge = json.dumps({"socketPath": "edge.sock"})
    doors = ["--oip-http", "127.0.0.1:0", "--oip-grpc", "127.0.0.1:0", "--edge-manager", edge]
    with running(doors) as (folder, files):
        model = make_model(folder / "model")
        offer(folder, "com.example.Bench", model)
        return _measure(folder, files, model)


@contextlib.contextmanager
def running(options: Sequence[str] = ()) -> Iterator[tuple[Path, Path]]:
    """An agent's work folder (its output is agent.log, its socket agent.sock) and its artifacts; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="mb") as name:
        folder = Path(name)
        files, log = publish(folder / "agent"), folder / "agent.log"
        command = [sys.executable, "-u", files / "agent.py", *options]
        with log.open("w") as output, subprocess.Popen(command, cwd=folder, stdout=output) as agent:
            try:
                system.wait_for(lambda: "listening on" in log.read_text(), "the agent to listen", 60)
                yield folder, files
            finally:
                agent.terminate()


def offer(folder: Path, component: str, model: Path, **settings: Any) -> None:
    """Offers a model to the agent in `folder`, as version 1.0.0 of the component."""
    named = ["--component", component, "--version", "1.0.0", "--socket", "agent.sock", "--artifacts", model]
    command = [sys.executable, folder / "agent/hand_over.py", "offer", *named, "--settings", json.dumps(settings)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def publish(target: Path) -> Path:
    """The agent's artifacts, as its recipe names them."""
    target.mkdir()
    recipe = yaml.safe_load((REPOSITORY / "recipes/marram.ModelAgent-1.0.0.yaml").read_text())
    for artifact in recipe["Manifests"][0]["Artifacts"]:
        name = artifact["URI"].rpartition("/")[2]
        shutil.copyfile(REPOSITORY / _OURS.get(name, f"components/model_agent/{name}"), target / name)
    return target


def make_model(folder: Path) -> Path:
    """A model component's files: the mean of its input, which may have any length."""
    import onnx

    helper = onnx.helper
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [size]) for name, size in (("x", "n"), ("y", 1))
    ]
    graph = helper.make_graph([helper.make_node("ReduceMean", ["x"], ["y"], keepdims=1)], ALIAS, values[:1], values[1:])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    sample = {"inputs": {"x": [1, 2]}, "outputs": {"y": [1.5]}}
    return write_model(folder, ALIAS, data, {"x": [-1]}, {"y": [1]}, sample)


def write_model(
    folder: Path, alias: str, data: bytes, inputs: dict[str, Any], outputs: dict[str, Any], sample: dict[str, Any]
) -> Path:
    """A model component's files; inputs and outputs are names and shapes of float32."""

    def tensors(shapes: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"name": name, "dtype": "float32", "shape": shape} for name, shape in shapes.items()]

    described = {
        "name": alias,
        "version": "1.0.0",
        "file": "model.onnx",
        "sha256": hashlib.sha256(data).hexdigest(),
        "runtime": {"name": "onnxruntime"},
        "inputs": tensors(inputs),
        "outputs": tensors(outputs),
        "golden": {"tolerance": {"absolute": 1e-6, "relative": 0}, "samples": [sample]},
    }
    folder.mkdir()
    (folder / "model.onnx").write_bytes(data)
    (folder / "model.json").write_text(json.dumps(described))
    return folder


def _measure(folder: Path, files: Path, model: Path) -> list[tuple[str, str, str]]:
    found = dict(re.findall(r"inference protocol: (gRPC|REST) on (\S+)", (folder / "agent.log").read_text()))
    asked = {
        "files": str(files),
        "model": str(model / "model.onnx"),
        "alias": ALIAS,
        "token": (folder / "oip.token").read_text(),
        "addresses": {"native": str(folder / "agent.sock"), "edge": f"unix:{folder}/edge.sock", **found},
        "sizes": SIZES,
    }
    client: list[str | Path] = [sys.executable, REPOSITORY / "tools/bench_model_client.py", json.dumps(asked)]
    ran = subprocess.run(client, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    return _rows(json.loads(ran.stdout))


def _rows(found: dict[str, dict[str, dict[str, Any]]]) -> list[tuple[str, str, str]]:
    rows = []
    for size, doors in found.items():
        direct = doors["direct"]["p50_us"]
        for door, each in doors.items():
            over, times = each["p50_us"] - direct, each["p50_us"] / direct
            against = f"+{over:,.0f} us, {times:.1f} x direct; " if door != "direct" else ""
            least = doors.get("floor gRPC" if "gRPC" in door or "edge" in door else "floor", each)
            if least is not each and door != "direct":
                against += f"{each['p50_us'] / least['p50_us']:.2f} x its floor; "
            method = f"{against}p99 {each['p99_us']:,.0f} us; {each['client']}, {each['count']} calls"
            rows.append((f"model {size}: {door}", f"{each['p50_us']:,.0f} us", method))
    return rows
