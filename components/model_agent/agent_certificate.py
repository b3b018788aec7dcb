"""Accuracy certificates (pure but for `target`): what was measured about a model, where, and whether it counts here.

`certificate.json` lies beside model.json and is listed in the signed manifest like any artifact. `marram model optimise`
writes it. Its format (final; later versions of it only add keys, unknown ones are ignored; digests are SHA-256 in hex):

    {"format": 1,
     "model": {"sha256": of the model's file, "sourceSha256": of the model it was made from (its own for an original)},
     "runtime": {"name": "onnxruntime", "version": "1.32.0", "provider": "CPUExecutionProvider"},
     "target": {"class": "linux/x86_64", "features": ["avx2"]},
     "precision": effective, as computed and not as asked for: "float64", "float32", "float16", "bfloat16" or "int8",
     "data": {"calibrationSha256": or "", "evaluationSha256", "evaluationSamples": count},
     "metric": {"name", "against": "labels" or "source", "source": number, "candidate": number},
     "interval": {"low", "high", "confidence": 0.95, "method"}   of (candidate - source), more is better,
     "margin": the loss that was allowed, >= 0: it holds if low >= -margin,
     "measured": {free numbers and texts for people: "latencyMs", "memoryBytes", "sizeBytes", ...},
     "issuedAt": ISO 8601}

It counts on a device if the model's bytes are those it names, its runtime has the same name, provider and first two
numbers of the version, and its target has the same class and no feature that the device lacks: the features are those
of FEATURES that the measuring machine had, because they decide how integers and halves are computed.
"""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "certificate.json"
LIMIT_BYTES = 1024 * 1024
FORMAT = 1
PROVIDER = "CPUExecutionProvider"
# Names as /proc/cpuinfo has them (x86 `flags`, Arm `Features`): only those that change what the runtime's kernels compute.
FEATURES = (
    *("avx", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_int8"),
    *("amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2"),
)
COMPUTED = ("float64", "float32", "float16", "int8")  # what this agent's sessions compute; they never lower to bfloat16
PRECISIONS = (*COMPUTED, "bfloat16")


class CertificateError(Exception):
    """The certificate does not speak for this model here; the message says why."""


@dataclass(frozen=True)
class Target:
    """A kind of machine: `system/machine` in lower case, and those of FEATURES it has."""

    kind: str
    features: frozenset[str]


@dataclass(frozen=True)
class Certificate:
    """What a certificate.json says; `low` and `high` bound (candidate - source)."""

    model: str
    source: str
    runtime: str
    runtime_version: str
    provider: str
    target: Target
    precision: str
    evaluation: str
    evaluation_samples: int
    metric: str
    against: str
    candidate: float
    low: float
    high: float
    confidence: float
    margin: float

    def line(self) -> str:
        """Its figures for people."""
        bounds = f"{self.low:+.4g} to {self.high:+.4g} at {self.confidence:g}"
        return f"{self.metric} {self.candidate:.4g} against {self.against} ({bounds}, margin {self.margin:g})"


def read(data: bytes) -> Certificate:
    """The certificate in `data`. Raises CertificateError with the key that is wrong."""
    try:
        found = _certificate(json.loads(data))
    except KeyError as error:
        raise CertificateError(f"{FILE} lacks {error}; write it with marram model optimise") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CertificateError(f"{FILE} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if found.low < -found.margin:
        raise CertificateError(f"it proves no accuracy: {found.line()} may lose more than its margin")
    return found


def judge(found: Certificate, sha256: str, runtime: str, runtime_version: str, device: Target) -> None:
    """Raises CertificateError unless `found` speaks for these bytes on this runtime and device."""
    if found.model != sha256.lower():
        raise CertificateError(f"it is for a model with SHA-256 {found.model[:12]}..., this one has {sha256[:12]}...")
    if (found.runtime, found.provider) != (runtime, PROVIDER):
        raise CertificateError(
            f"it is for {found.runtime} with {found.provider}, this agent has {runtime} with {PROVIDER}"
        )
    if _release(found.runtime_version) != _release(runtime_version):
        raise CertificateError(f"it was measured with {runtime} {found.runtime_version}, this is {runtime_version}")
    if found.target.kind != device.kind:
        raise CertificateError(f"it was measured on {found.target.kind}, this is {device.kind}")
    if lacking := sorted(found.target.features - device.features):
        raise CertificateError(f"it was measured on a machine with {', '.join(lacking)}, which this one lacks")
    if found.precision not in COMPUTED:
        raise CertificateError(f"it was measured at {found.precision}, which this agent does not compute in")


def target(cpuinfo: Path = Path("/proc/cpuinfo")) -> Target:
    """This machine. A machine that does not tell its features has none."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        text = ""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    has = set(line.group(1).split()) if line else set()
    kind = f"{platform.system()}/{platform.machine()}".lower()
    return Target(kind, frozenset(has.intersection(FEATURES)))


def _certificate(given: Any) -> Certificate:
    if given["format"] != FORMAT:
        raise ValueError(f"format {given['format']!r} is not known here; update the model agent")
    metric, interval, data = given["metric"], given["interval"], given["data"]
    target_class, features = given["target"]["class"], given["target"].get("features", [])
    if not isinstance(features, list):
        raise ValueError("target: features is no list")
    if given["precision"] not in PRECISIONS:
        raise ValueError(f"precision {given['precision']!r} is none of {', '.join(PRECISIONS)}")
    return Certificate(
        model=_digest(given["model"]["sha256"]),
        source=_digest(given["model"]["sourceSha256"]),
        runtime=str(given["runtime"]["name"]),
        runtime_version=str(given["runtime"]["version"]),
        provider=str(given["runtime"].get("provider", PROVIDER)),
        target=Target(str(target_class).lower(), frozenset(map(str, features))),
        precision=str(given["precision"]),
        evaluation=_digest(data["evaluationSha256"]),
        evaluation_samples=int(data["evaluationSamples"]),
        metric=str(metric["name"]),
        against=str(metric["against"]),
        candidate=_number(metric["candidate"]),
        low=_number(interval["low"]),
        high=_number(interval["high"]),
        confidence=_number(interval["confidence"], 0, 1),
        margin=_number(given["margin"], 0),
    )


def _digest(given: Any) -> str:
    text = str(given).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"{text[:80]!r} is no SHA-256")
    return text


def _number(given: Any, low: float = float("-inf"), high: float = float("inf")) -> float:
    number = float(given)
    if isinstance(given, bool) or not low <= number <= high or number in (float("inf"), float("-inf")):
        raise ValueError(f"{given!r} is not a number in its range")
    return number


def _release(version: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", version)[:2])
