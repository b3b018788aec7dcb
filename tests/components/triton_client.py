"""Everything a test wants from NVIDIA's unmodified client, in a process of its own: its messages have our messages' names.

python triton_client.py (grpc|http) ADDRESS TOKEN REPOSITORY_OF_OURS   prints one JSON object
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

KIND, ADDRESS, TOKEN, FILES = sys.argv[1:5]
tritonclient: Any = importlib.import_module(f"tritonclient.{KIND}")
client = tritonclient.InferenceServerClient(ADDRESS)
PLAIN: dict[str, Any] = {"as_json": True} if KIND == "grpc" else {}
CONDITIONS = np.array([[8.0, 10.0], [11.0, 0.0]], dtype=np.float32)


def headers() -> dict[str, Any]:
    """Made anew for each call: the HTTP client writes its own into what it is given."""
    return {"headers": {"marram-token": TOKEN}}


def tensor(name: str, array: Any, datatype: str, **how: Any) -> Any:
    made = tritonclient.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, **(how if KIND == "http" else {}))
    return made


def conditions() -> list[Any]:
    return [tensor("conditions", CONDITIONS, "FP32")]


def answer(result: Any) -> dict[str, Any]:
    said = result.get_response(**PLAIN)
    return {"version": said["model_version"], "id": said.get("id", ""), "values": power(result)}


def power(result: Any) -> list[float]:
    return [round(float(value), 3) for value in result.as_numpy("power_kw").ravel()]


def refused(function: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """`status: message`, or what came instead."""
    try:
        return f"answered: {function(*arguments, **options)}"
    except importlib.import_module("tritonclient.utils").InferenceServerException as error:
        return f"{error.status()}: {error.message()}"


def every_dtype(**how: Any) -> dict[str, bool]:
    """Whether each data type came back as it was sent."""
    known = importlib.import_module("tritonclient.utils")
    described = client.get_model_metadata("every", **PLAIN)
    sent = {
        each["name"]: np.array([0, 1, 100], dtype=known.triton_to_np_dtype(each["datatype"]))
        for each in described["inputs"]
    }
    inputs = [tensor(each["name"], sent[each["name"]], each["datatype"], **how) for each in described["inputs"]]
    outputs = None if how.get("binary_data", True) else [wanted(f"{name}_out", **how) for name in sent]
    result = client.infer("every", inputs, outputs=outputs)
    return {
        name: bool(
            np.array_equal(result.as_numpy(f"{name}_out"), array)
            and result.as_numpy(f"{name}_out").dtype == array.dtype
        )
        for name, array in sent.items()
    }


def wanted(name: str, **how: Any) -> Any:
    return tritonclient.InferRequestedOutput(name, **(how if KIND == "http" else {}))


def told() -> dict[str, Any]:
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": [client.is_model_ready("power-curve", version) for version in ("", "1.1.0", "1.0.0")],
        "unknown_ready": client.is_model_ready("unknown"),
        "server": client.get_server_metadata(**PLAIN),
        "metadata": client.get_model_metadata("power-curve", **PLAIN),
        "config": client.get_model_config("power-curve", "1.1.0", **PLAIN),
        "index": client.get_model_repository_index(**PLAIN),
    }


def inferred() -> dict[str, Any]:
    zipped: dict[str, Any] = (
        {"compression_algorithm": "gzip"}
        if KIND == "grpc"
        else {"request_compression_algorithm": "gzip", "response_compression_algorithm": "deflate"}
    )
    return {
        "plain": answer(client.infer("power-curve", conditions(), request_id="7", timeout=5_000_000)),
        "by_version": answer(client.infer("power-curve", conditions(), model_version="1.1.0")),
        "chosen": answer(client.infer("power-curve", conditions(), outputs=[wanted("power_kw")])),
        "zipped": answer(client.infer("power-curve", conditions(), **zipped)),
        "background": in_background(),
        "asyncio": asyncio.run(with_asyncio()),
        "every_dtype": every_dtype(),
        "every_dtype_json": every_dtype(binary_data=False),
    }


def in_background() -> list[float]:
    if KIND == "http":
        return power(client.async_infer("power-curve", conditions()).get_result())
    queue: Any = importlib.import_module("queue").Queue()
    client.async_infer("power-curve", conditions(), callback=lambda result, error: queue.put((result, error)))
    result, error = queue.get(timeout=20)
    return power(result) if error is None else [str(error)]  # type: ignore[list-item]


async def with_asyncio() -> list[float]:
    module: Any = importlib.import_module(f"tritonclient.{KIND}.aio")
    async with module.InferenceServerClient(ADDRESS) as one:
        return power(await one.infer("power-curve", conditions()))


def refusals() -> dict[str, str]:
    wide = np.zeros((1, 3), np.float32)
    ints = np.zeros((1, 2), np.int32)
    infer = client.infer
    return {
        "unknown model": refused(infer, "unknown", conditions()),
        "other version": refused(infer, "power-curve", conditions(), model_version="9"),
        "no input": refused(infer, "power-curve", []),
        "other input": refused(infer, "power-curve", [tensor("other", CONDITIONS, "FP32")]),
        "other type": refused(infer, "power-curve", [tensor("conditions", ints, "INT32")]),
        "other shape": refused(infer, "power-curve", [tensor("conditions", wide, "FP32")]),
        "other output": refused(infer, "power-curve", conditions(), outputs=[wanted("other")]),
        "bytes": refused(infer, "power-curve", [tensor("conditions", np.array([b"a"], object), "BYTES")]),
        "bf16": refused(infer, "power-curve", [bf16()]),
        "classification": refused(
            infer, "power-curve", conditions(), outputs=[tritonclient.InferRequestedOutput("power_kw", class_count=2)]
        ),
        "sequence": refused(infer, "power-curve", conditions(), sequence_id=5, sequence_start=True),
        "metadata": refused(client.get_model_metadata, "unknown"),
        "config": refused(client.get_model_config, "unknown"),
        "statistics": refused(client.get_inference_statistics, "unknown"),
        "shared memory": refused(infer, "power-curve", [elsewhere("unknown")], **headers()),
        "shared memory without token": refused(client.register_system_shared_memory, "r", "/r", 64),
    }


def bf16() -> Any:
    array = np.zeros((1, 2), importlib.import_module("ml_dtypes").bfloat16)
    return tensor("conditions", array, "BF16")


def repository() -> dict[str, Any]:
    files = {f"file:{path.name}": path.read_bytes() for path in Path(FILES).iterdir()}
    wrong = {"headers": {"marram-token": "0" * 64}}
    steps: dict[str, Any] = {
        "load without token": refused(client.load_model, "stored"),
        "load with a wrong token": refused(client.load_model, "stored", **wrong),
        "unload without token": refused(client.unload_model, "power-curve"),
        "unload another's": refused(client.unload_model, "power-curve", **headers()),
        "load another's": refused(client.load_model, "power-curve", config="{}", files=files, **headers()),
        "load what answers": refused(client.load_model, "power-curve", **headers()),
        "load unknown": refused(client.load_model, "unknown", **headers()),
        "unload unknown": refused(client.unload_model, "unknown", **headers()),
        "load": refused(client.load_model, "stored", **headers()),
        "loaded": client.is_model_ready("stored", "2.0.0"),
        "load its twin": refused(client.load_model, "twin", **headers()),
        "load again": refused(client.load_model, "stored", **headers()),
        "unload": refused(client.unload_model, "stored", **headers()),
        "its twin": client.is_model_ready("twin", "2.0.0"),
        "unload its twin": refused(client.unload_model, "twin", **headers()),
        "unloaded": client.is_model_ready("stored"),
        "unload again": refused(client.unload_model, "stored", **headers()),
        "load damaged": refused(client.load_model, "damaged", **headers()),
        "load sent": refused(client.load_model, "sent", config="{}", files=files, **headers()),
        "sent": client.is_model_ready("sent", "3.0.0"),
        "sent as another": refused(client.load_model, "other", config="{}", files=files, **headers()),
        "sent elsewhere": refused(client.load_model, "sent", config="{}", files={"file:../x": b"1"}, **headers()),
    }
    client.unload_model("sent", **headers())
    return steps


def elsewhere(region: str, size: int = CONDITIONS.nbytes, offset: int = 0) -> Any:
    made = tritonclient.InferInput("conditions", list(CONDITIONS.shape), "FP32")
    made.set_shared_memory(region, size, offset)
    return made


def there(region: str, size: int, offset: int) -> Any:
    made = tritonclient.InferRequestedOutput("power_kw")
    made.set_shared_memory(region, size, offset)
    return made


def shared() -> dict[str, Any]:
    """One region: the input behind 16 bytes, the answer behind it; then what must not work."""
    memory: Any = importlib.import_module("tritonclient.utils.shared_memory")
    key = f"marram-test-{KIND}-{os.getpid()}"
    region = memory.create_shared_memory_region("region", key, 64)
    try:
        memory.set_shared_memory_region(region, [CONDITIONS], offset=16)
        register = client.register_system_shared_memory
        register("region", key, 64, **headers())
        status = client.get_system_shared_memory_status("region", **headers(), **PLAIN)
        inputs, outputs = [elsewhere("region", 16, 16)], [there("region", 8, 32)]
        result = client.infer("power-curve", inputs, outputs=outputs, **headers())
        values = memory.get_contents_as_numpy(region, np.float32, [2], offset=32).tolist()
        found = {
            "status": status,
            "shape": [int(size) for size in described_output(result)["shape"]],
            "values": [round(value, 3) for value in values],
            "again": refused(register, "region", key, 64, **headers()),
            "too large": refused(register, "other", key, 10_000, **headers()),
            "no segment": refused(register, "other", f"{key}-none", 64, **headers()),
            "escape": refused(register, "other", "../etc/passwd", 64, **headers()),
            "outside": refused(client.infer, "power-curve", [elsewhere("region", 16, 60)], **headers()),
            "small": refused(client.infer, "power-curve", conditions(), outputs=[there("region", 4, 0)], **headers()),
            "no token": refused(client.infer, "power-curve", inputs),
        }
        os.truncate(f"/dev/shm/{key}", 20)
        found["cut"] = refused(client.infer, "power-curve", inputs, **headers())
        found["cut output"] = refused(client.infer, "power-curve", conditions(), outputs=outputs, **headers())
        os.truncate(f"/dev/shm/{key}", 64)
        client.unregister_system_shared_memory(**headers())
        found["gone"] = refused(client.infer, "power-curve", inputs, **headers())
        return found
    finally:
        memory.destroy_shared_memory_region(region)


def described_output(result: Any) -> Any:
    output = result.get_output("power_kw")  # its as_json answers None over gRPC
    return output if isinstance(output, dict) else {"shape": output.shape}


print(
    json.dumps(
        {
            "told": told(),
            "inferred": inferred(),
            "refusals": refusals(),
            "repository": repository(),
            "shared": shared(),
            "statistics": client.get_inference_statistics("power-curve", **PLAIN),
        }
    )
)
