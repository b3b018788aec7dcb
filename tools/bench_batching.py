"""Measures what joining requests to one run gives: `make bench BENCH=batching`.

Method: a network of four layers of 2048 neurons (67 MB of weights, read from memory for each run), one core, one row a
request, CLIENTS threads of one process that ask as quickly as they are answered. The same model under two aliases of one
agent, with and without `batching` in its settings, asked in turn, so that a loud minute of the machine meets both.
"""

from __future__ import annotations

import importlib
import itertools
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from tools import bench_model

WIDTH, LAYERS, ANSWERS = 2048, 4, 8
CLIENTS, ROUNDS, ROUND_S = 8, 8, 1.0
SETTINGS: dict[str, dict[str, Any]] = {"alone": {}, "joined": {"batching": {"maxRows": CLIENTS}}}


def measure() -> list[tuple[str, str, str]]:
    """Rows of `make bench`: answers a second with each setting."""
    data = network()
    sample = {"inputs": {"x": [[0.0] * WIDTH]}, "outputs": {"y": [[0.0] * ANSWERS]}}
    with bench_model.running() as (folder, files):
        for alias, settings in SETTINGS.items():
            model = bench_model.write_model(
                folder / alias, alias, data, {"x": [-1, WIDTH]}, {"y": [-1, ANSWERS]}, sample
            )
            bench_model.offer(folder, f"com.example.{alias.title()}", model, **settings)
        sys.path.insert(0, str(files))
        try:
            counts: dict[str, list[int]] = {alias: [] for alias in SETTINGS}
            for _ in range(ROUNDS):
                for alias, found in counts.items():
                    found.append(answered(folder / "agent.sock", alias))
        finally:
            sys.path.remove(str(files))
    alone, joined = (float(np.median(counts[alias])) / ROUND_S for alias in SETTINGS)
    method = f"median of {ROUNDS} rounds in turn; {CLIENTS} clients, one row a request, 67 MB of weights, one core"
    return [
        ("batching: off", f"{alone:,.0f} answers/s", method),
        ("batching: on", f"{joined:,.0f} answers/s", f"{joined / alone:.1f} x as many; {method}"),
    ]


def network() -> bytes:
    """Random weights without biases: zeros in, zeros out."""
    onnx, random = importlib.import_module("onnx"), np.random.default_rng(1)
    helper, last, nodes, weights = onnx.helper, "x", [], []
    widths = [WIDTH] * LAYERS + [ANSWERS]
    for number, (width, following) in enumerate(itertools.pairwise(widths)):
        values = random.normal(0, width**-0.5, (width, following)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(values, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [f"m{number}"]))
        nodes.append(helper.make_node("Relu", [f"m{number}"], [last := f"r{number}"]))
    nodes[-1].output[0] = "y"
    ends = (("x", ["n", WIDTH]), ("y", ["n", ANSWERS]))
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ends]
    graph = helper.make_graph(nodes, "wide", ports[:1], ports[1:], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


def answered(path: Path, alias: str) -> int:
    """How many answers CLIENTS threads got within ROUND_S."""
    client, stop, counts = importlib.import_module("model_client"), threading.Event(), [0] * CLIENTS
    row = np.random.default_rng(2).random((1, WIDTH), dtype=np.float32)

    def ask(number: int) -> None:
        one = client.Client(str(path))
        while not stop.is_set():
            one.predict(alias, {"x": row}, deadline_s=20.0)
            counts[number] += 1
        one.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    for each in threads:
        each.start()
    stop.wait(ROUND_S)
    stop.set()
    for each in threads:
        each.join()
    return sum(counts)
