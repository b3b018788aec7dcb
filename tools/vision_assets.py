"""Makes the two binaries of the vision demo from their sources; run once, the results are committed.

`python -m tools.vision_assets detector SOURCE.onnx` keeps the weights of the detector as 16-bit floats, each with a Cast
in front of its use: half the size, and still a model that any runtime takes. The weights came as 16-bit floats from
their makers, so nothing is lost; `expand` gives the original back (the tool compares the outputs bit by bit).

`python -m tools.vision_assets video SOURCE.avi` cuts the video: every third frame, 432 x 324, as progressive JPEGs one
behind the other (MJPEG). It needs the PyPI packages av and pillow.
"""

from __future__ import annotations

import argparse
import importlib
import io
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "components/vision/assets"
DETECTOR, VIDEO = FOLDER / "detector_weights16.onnx", FOLDER / "walkers.mjpeg"
EVERY, SIZE, QUALITY, VIDEO_LIMIT_BYTES = 3, (432, 324), 55, 4_000_000
_SHORT = "_16"  # ends the names of weights that are stored short


def shrink(data: bytes) -> bytes:
    """The model with its 32-bit weights stored as 16-bit ones; raises ValueError if a weight would change."""
    onnx, numpy, helper = _libraries()
    model = onnx.load_model_from_string(data)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or not tensor.dims:
            continue
        name, weights = tensor.name, helper.to_array(tensor)
        short = weights.astype(numpy.float16)
        if not (short.astype(numpy.float32) == weights).all():
            raise ValueError(f"cannot shrink {name}: it holds more than 16 bits")
        tensor.CopyFrom(helper.from_array(short, name + _SHORT))
        casts.append(onnx.helper.make_node("Cast", [name + _SHORT], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    return bytes(model.SerializeToString())


def expand(data: bytes) -> bytes:
    """What `shrink` was given: 32-bit weights, no Casts."""
    onnx, numpy, helper = _libraries()
    model = onnx.load_model_from_string(data)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(_SHORT):
            weights = helper.to_array(tensor).astype(numpy.float32)
            tensor.CopyFrom(helper.from_array(weights, tensor.name.removesuffix(_SHORT)))
    kept = [node for node in model.graph.node if not (node.op_type == "Cast" and node.input[0].endswith(_SHORT))]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return bytes(model.SerializeToString())


def make_detector(source: Path) -> None:
    data = source.read_bytes()
    short = shrink(data)
    same = _outputs(data), _outputs(short), _outputs(expand(short))
    if not (same[0] == same[1] == same[2]):
        raise SystemExit("cannot keep it short: its outputs differ from the source's")
    DETECTOR.write_bytes(short)
    whole = "byte for byte" if expand(short) == data else "with equal outputs"
    print(f"{DETECTOR.name}: {len(short):,} of {len(data):,} bytes; expands to its source {whole}")


def make_video(source: Path) -> None:
    av, image = importlib.import_module("av"), importlib.import_module("PIL.Image")
    taken: list[bytes] = []
    total = 0
    for number, frame in enumerate(av.open(str(source)).decode(video=0)):
        if number % EVERY:
            continue
        buffer = io.BytesIO()
        small = frame.to_image().resize(SIZE, image.Resampling.LANCZOS)
        small.save(buffer, "JPEG", quality=QUALITY, optimize=True, progressive=True, subsampling=2)
        total += buffer.tell()
        if total > VIDEO_LIMIT_BYTES:
            break
        taken.append(buffer.getvalue())
    VIDEO.write_bytes(b"".join(taken))
    print(f"{VIDEO.name}: {len(taken)} frames, {VIDEO.stat().st_size:,} bytes")


def _outputs(data: bytes) -> list[bytes]:
    """What a model answers for eight random images."""
    numpy, runtime = importlib.import_module("numpy"), importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    images = numpy.random.default_rng(7).uniform(-1, 1, (8, 1, 300, 300, 3)).astype(numpy.float32)
    return [answer.tobytes() for one in images for answer in session.run(None, {"image": one})]


def _libraries() -> tuple[Any, Any, Any]:
    onnx = importlib.import_module("onnx")
    return onnx, importlib.import_module("numpy"), importlib.import_module("onnx.numpy_helper")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("detector", "video"))
    parser.add_argument("source", type=Path)
    given = parser.parse_args()
    (make_detector if given.what == "detector" else make_video)(given.source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
