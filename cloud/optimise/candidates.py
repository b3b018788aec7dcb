"""Forms of a model that may pay on a target (pure): which model file, made how, and the settings of its session."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cloud.optimise import runtimes, targets

SOURCE = "source"


class Form(msgspec.Struct, frozen=True):
    """One model file: `kind` is source, fp16, static, dynamic or ort (the source in ORT's own format).

    `activations` and `weights` are int8 or uint8. `narrow` gives weights 7 bits in layers that saturate on CPUs without VNNI
    (saturation.py). `float_ends` leaves the last layers as they are: what they lose, nothing mends.
    `precision` is what it says it computes in.
    """

    name: str
    kind: str
    precision: str
    per_channel: bool = False
    activations: str = ""
    weights: str = ""
    narrow: bool = False
    float_ends: bool = False


class Candidate(msgspec.Struct, frozen=True):
    """A form, run by a runtime with settings."""

    form: Form
    runtime: str
    settings: runtimes.Settings

    @property
    def name(self) -> str:
        """Short and unlike every other candidate's."""
        words = [self.form.name]
        if self.runtime != "onnxruntime":
            words.append(self.runtime.rpartition(":")[2])
        if self.settings.hint:
            words.append(self.settings.hint)
        if self.settings.level != "all":
            words.append(self.settings.level)
        if self.settings.threads != 1:
            words.append(f"{self.settings.threads} threads")
        return " · ".join(words)

    @property
    def plain(self) -> bool:
        """Whether it has the settings that the agent takes by itself: everything that optimises, one thread."""
        return self.settings.level == "all" and self.settings.threads == 1

    @property
    def precision(self) -> str:
        """What it says it computes in."""
        return {"bf16": "bfloat16", "f16": "float16"}.get(self.settings.hint, self.form.precision)


FORMS = (
    Form(SOURCE, "source", "float32"),
    Form("fp16", "fp16", "float16"),
    Form("INT8 per-channel U8S8", "static", "int8", True, "uint8", "int8"),
    Form("INT8 per-channel U8S8 narrow", "static", "int8", True, "uint8", "int8", True),
    Form("INT8 per-channel U8S8 narrow, float ends", "static", "int8", True, "uint8", "int8", True, True),
    Form("INT8 per-channel S8S8", "static", "int8", True, "int8", "int8"),
    Form("INT8 per-tensor U8S8", "static", "int8", False, "uint8", "int8"),
    Form("INT8 per-tensor U8S8 narrow", "static", "int8", False, "uint8", "int8", True),
    Form("INT8 per-tensor S8S8", "static", "int8", False, "int8", "int8"),
    Form("INT8 dynamic", "dynamic", "int8", True, "uint8", "int8"),
    Form("ORT format", "ort", "float32"),
)


def listed(target: targets.Target, others: Sequence[str] = (), only: Sequence[str] = ()) -> tuple[Candidate, ...]:
    """All candidates of a target, the source first.

    `others` are runtimes beside onnxruntime; `only` names the forms to be tried beside the source, () all.
    """
    tried = [form for form in FORMS if form.name == SOURCE or not only or form.name in only]
    threads = sorted({1, min(2, target.threads), target.threads})
    found = [
        Candidate(form, "onnxruntime", runtimes.Settings(level, count))
        for form in tried
        for level in runtimes.LEVELS
        for count in threads
    ]
    for runtime in others:
        hints = runtimes.HINTS if runtime == "openvino" else ("",)
        found += [
            Candidate(form, runtime, runtimes.Settings("all", count, hint))
            for form in tried
            if form.kind in ("source", "static")
            for hint in hints
            for count in threads
        ]
    return tuple(sorted(found, key=lambda one: not (one.form.name == SOURCE and one.plain and not one.settings.hint)))


def source(found: Sequence[Candidate]) -> Candidate:
    """The source as the agent would run it: what all others are measured against."""
    return next(one for one in found if one.form.name == SOURCE and one.plain and one.runtime == "onnxruntime")


def form(name: str) -> Form:
    """The form of that name. Raises KeyError."""
    return {each.name: each for each in FORMS}[name]


def wide(narrow: Form) -> Form:
    """The form that a narrow one narrows: 8 bits in every layer."""
    plain = msgspec.structs.replace(narrow, name="", narrow=False, float_ends=False)
    return next(each for each in FORMS if msgspec.structs.replace(each, name="") == plain)
