"""Makes the model files of forms: 16-bit floats, 8-bit integers by calibration or on the fly, ORT's own format.

Equal inputs give equal bytes in every process. onnx and onnxruntime's own tools do the work; nothing of a session ends up in
a file, but in the ORT format, which is made at the level that binds it to no CPU. Its bytes alone differ from process to
process, by onnxruntime's doing; it is measured for people and never becomes a component (gate.py, FORMAT).
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cloud.optimise import candidates, graphs, runtimes, samples, saturation


class FormError(Exception):
    """The form cannot be made of this model; the message says why."""


class Maker:
    """Makes forms of one model into a folder, each once. `calibration` is what the ranges of activations come from."""

    def __init__(self, source: Path, calibration: samples.Samples, folder: Path) -> None:
        self._source, self._calibration, self._folder = source, calibration, folder
        self._made: dict[str, Path | FormError] = {}
        self._layers: dict[str, tuple[saturation.Layer, ...]] = {}

    @property
    def layers(self) -> Mapping[str, tuple[saturation.Layer, ...]]:
        """What is known of layers that saturate, for each form with 8 bits everywhere that was asked to be narrowed."""
        return self._layers

    def file(self, form: candidates.Form) -> Path:
        """The file of a form. Raises FormError, the same one again for the same form."""
        if form.name not in self._made:
            self._made[form.name] = self._attempt(form)
        found = self._made[form.name]
        if isinstance(found, FormError):
            raise found
        return found

    def _attempt(self, form: candidates.Form) -> Path | FormError:
        if form.kind == "source":
            return self._source
        ending = "ort" if form.kind == "ort" else "onnx"
        target = self._folder / f"{form.name.replace(' ', '_')}.{ending}"
        try:
            with _quiet():
                _MAKERS[form.kind](self, form, target)
        except FormError as error:  # of the form that this one narrows
            return error
        except Exception as error:  # tools raise what they like on models they do not know
            return FormError(f"{form.kind} form cannot be made: {' '.join(str(error).split())[:300]}")
        return target

    def half(self, form: candidates.Form, target: Path) -> None:
        """Weights and activations of 16 bits; inputs and outputs stay as they are."""
        onnx: Any = importlib.import_module("onnx")
        float16: Any = importlib.import_module("onnxruntime.transformers.float16")
        made = float16.convert_float_to_float16(onnx.load(self._source), keep_io_types=True)
        target.write_bytes(made.SerializeToString(deterministic=True))

    def static(self, form: candidates.Form, target: Path) -> None:
        """Quantises with the ranges that were seen on the calibration set, after the tools' own preparation."""
        library: Any = importlib.import_module("onnxruntime.quantization")
        kinds = {"int8": library.QuantType.QInt8, "uint8": library.QuantType.QUInt8}
        prepared = self._prepared()
        onnx: Any = importlib.import_module("onnx")
        graph = onnx.load(prepared).graph
        names = self._saturating(form) if form.narrow else ()
        library.quantize_static(
            str(prepared),
            str(target),
            _reader(library, self._calibration),
            quant_format=library.QuantFormat.QDQ,
            per_channel=form.per_channel,
            activation_type=kinds[form.activations],
            weight_type=kinds[form.weights],
            nodes_to_exclude=graphs.ends(graph) if form.float_ends else [],
            extra_options={
                "TensorQuantOverrides": graphs.narrowed(graph, names, form.per_channel, kinds[form.weights])
            },
        )

    def dynamic(self, form: candidates.Form, target: Path) -> None:
        """Quantises weights now and activations in every call."""
        library: Any = importlib.import_module("onnxruntime.quantization")
        kinds = {"int8": library.QuantType.QInt8, "uint8": library.QuantType.QUInt8}
        # onnxruntime has no kernel for signed weights of a ConvInteger on every CPU: where it has none, unsigned ones.
        for weights in (form.weights, "uint8"):
            library.quantize_dynamic(str(self._prepared()), str(target), per_channel=False, weight_type=kinds[weights])
            with contextlib.suppress(Exception):
                runtimes.OnnxRuntime().load(target, runtimes.Settings())
                return
        raise FormError("onnxruntime has no kernel for it here")

    def own_format(self, form: candidates.Form, target: Path) -> None:
        """The graph as optimised at the level that is good for every CPU, in the format that loads fastest."""
        library: Any = importlib.import_module("onnxruntime")
        options = library.SessionOptions()
        options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(target)
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.log_severity_level = 4
        library.InferenceSession(str(self._source), options, providers=["CPUExecutionProvider"])

    def _saturating(self, narrow: candidates.Form) -> tuple[str, ...]:
        """The names of the nodes that saturate on the calibration set, found once for each form that is narrowed."""
        wide = candidates.wide(narrow)
        if wide.name not in self._layers:
            onnx: Any = importlib.import_module("onnx")
            prepared = onnx.load(self._prepared())
            found = saturation.read(onnx.load(self.file(wide)).graph, prepared.graph)
            self._layers[wide.name] = saturation.layers(found, self._observed(prepared, found))
        return tuple(each.node for each in self._layers[wide.name] if each.saturates)

    def _observed(self, prepared: Any, found: Sequence[saturation.Weights]) -> Iterator[Mapping[str, samples.Array]]:
        """The inputs of the nodes in `found` for each calibration sample, as the model computes them in float32."""
        onnx: Any = importlib.import_module("onnx")
        given = {each.name for each in prepared.graph.input}
        wanted = sorted({each.input for each in found} - given)
        session = None
        if wanted:
            del prepared.graph.output[:]
            prepared.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
            target = self._folder / "observed.onnx"
            target.write_bytes(prepared.SerializeToString(deterministic=True))
            session = runtimes.OnnxRuntime().load(target, runtimes.Settings())
        for at in range(self._calibration.count):
            inputs = self._calibration.one(at)
            yield {**inputs, **(session.run(inputs) if session is not None else {})}

    def _prepared(self) -> Path:
        """The source with shapes inferred, constants folded where the tools can, and a name for every node."""
        target = self._folder / "prepared.onnx"
        if target.exists():
            return target
        onnx: Any = importlib.import_module("onnx")
        library: Any = importlib.import_module("onnxruntime.quantization.shape_inference")
        with contextlib.suppress(Exception):  # an optional step
            library.quant_pre_process(str(self._source), str(target), skip_symbolic_shape=True)
        model = onnx.load(target if target.exists() else self._source)
        graphs.give_names(model.graph)
        graphs.drop_unused_domains(model)
        target.write_bytes(model.SerializeToString(deterministic=True))
        return target


_MAKERS: dict[str, Any] = {
    "fp16": Maker.half,
    "static": Maker.static,
    "dynamic": Maker.dynamic,
    "ort": Maker.own_format,
}


def _reader(library: Any, given: samples.Samples) -> Any:
    """The samples as onnxruntime's calibration asks for them, one by one."""
    left = iter(range(given.count))

    class Reader(library.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            at = next(left, None)
            return None if at is None else given.one(at)

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Their tools advise on the root logger what we have done or decided."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
