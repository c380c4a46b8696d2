"""A measurement on disk: conditions, raw samples, summary; and the refusal to compare unlike ones.

Two measurements can be compared when what they ran on and what they ran was the same. What must
be the same is in `BenchConditions`; what may differ (the program's version, which is usually what
one wants to compare) is beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from edge_runtime.bench.latencies import summarize
from edge_runtime.bench.machine_state import NOT_AVAILABLE
from edge_runtime.errors import BundleFormatError, ConfigError
from edge_runtime.result import NOTICE
from edge_runtime.strict_json import dataclass_to_dict, parse_json_object, read_dataclass

__all__ = [
    "BenchComparison",
    "BenchConditions",
    "BenchRecord",
    "compare_records",
    "picture_set_sha256",
    "read_record",
    "write_record",
]

SCHEMA_VERSION = 1
_MAX_RECORD_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class BenchConditions:
    """What must be the same in two measurements.

    Attributes:
        mode: Of `edge-screen bench`.
        cpu_model: Processor or board.
        power_mode: Of nvpmodel, or "not available".
        governor: Of cpufreq, or "not available".
        engine: Name of the engine.
        precisions: That were timed, in order.
        versions: Of the engine, its libraries and the GPU, as the engine names them, and of the
            packages that decode and compute.
        bundle_sha256: Of bundle.json.
        pictures_sha256: Of the set of pictures, whatever their order.
        num_threads: Inside one run of the engine.
        num_workers: Pictures at a time.
        settings: Of the mode, e.g. the gap in seconds.
    """

    mode: str
    cpu_model: str
    power_mode: str
    governor: str
    engine: str
    precisions: tuple[str, ...]
    versions: Mapping[str, str]
    bundle_sha256: str
    pictures_sha256: str
    num_threads: int
    num_workers: int
    settings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BenchRecord:
    """One measurement, whole: raw samples in the order in which they were taken.

    Attributes:
        schema_version: Of this record.
        program_version: edge-screen's own.
        conditions: See there.
        samples_ms: Series -> every sample in milliseconds.
        figures: Single numbers by name, unit in the name; null is 'not available'.
        machine: State of the machine before and after, and throttling in between.
        timed_region: What is inside a sample.
        notice: Of every output.
    """

    schema_version: int = SCHEMA_VERSION
    program_version: str
    conditions: BenchConditions
    samples_ms: Mapping[str, tuple[float, ...]]
    figures: Mapping[str, Any]
    machine: Mapping[str, Any]
    timed_region: str
    notice: str = NOTICE

    def __post_init__(self) -> None:
        """Refuse a record of another version and one without samples."""
        if self.schema_version != SCHEMA_VERSION:
            raise ConfigError(
                f"schema_version is {self.schema_version}, this program reads {SCHEMA_VERSION}"
            )
        if not self.samples_ms or not all(self.samples_ms.values()):
            raise ConfigError("samples_ms has no sample; measure again")

    def to_dict(self, *, raw: bool = True) -> dict[str, Any]:
        """Return the record as JSON; without the raw samples, their summary only."""
        whole: dict[str, Any] = dataclass_to_dict(self)
        if raw:
            return whole
        whole.pop("samples_ms")
        summary = {name: asdict(summarize(values)) for name, values in self.samples_ms.items()}
        return {**whole, "summary": summary}


@dataclass(frozen=True, kw_only=True)
class BenchComparison:
    """B over A, of two measurements under the same conditions.

    Attributes:
        versions: Program versions of A and B.
        ratios: Series -> percentile -> B / A; below 1, B is faster.
        notes: What could not be known to be the same.
    """

    versions: tuple[str, str]
    ratios: Mapping[str, Mapping[str, float]]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON."""
        return {**asdict(self), "notice": NOTICE}


def picture_set_sha256(images: Sequence[bytes]) -> str:
    """Hash a set of encoded pictures; their order does not matter."""
    hashes = sorted(hashlib.sha256(data).hexdigest() for data in images)
    return hashlib.sha256("\n".join(hashes).encode("ascii")).hexdigest()


def write_record(path: Path, record: BenchRecord) -> None:
    """Write the record as JSON.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        path.write_text(json.dumps(record.to_dict(), allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--raw {path} cannot be written ({error.strerror}); name another file"
        ) from error


def read_record(path: Path) -> BenchRecord:
    """Read a record that `bench --raw` wrote.

    Raises:
        ConfigError: It cannot be read, or is no such record.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_RECORD_BYTES)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); check the path") from error
    try:
        return read_dataclass(BenchRecord, parse_json_object(data, name=path.name))
    except BundleFormatError as error:
        raise ConfigError(f"{path} is no record of `bench --raw`: {error}") from error


def compare_records(a: BenchRecord, b: BenchRecord) -> BenchComparison:
    """Compare two measurements.

    Raises:
        ConfigError: Their conditions differ; the message names every one that does.
    """
    differences = _differences(a, b)
    if differences:
        raise ConfigError(
            "the measurements are not of the same conditions: "
            + "; ".join(differences)
            + "; measure again under the same ones"
        )
    ratios: dict[str, dict[str, float]] = {}
    for name in a.samples_ms:
        first, second = summarize(a.samples_ms[name]), summarize(b.samples_ms[name])
        if min(first.p50_ms, second.p50_ms) > 0:
            ratios[name] = {
                "p50": round(second.p50_ms / first.p50_ms, 3),
                "p90": round(second.p90_ms / first.p90_ms, 3),
                "p99": round(second.p99_ms / first.p99_ms, 3),
            }
    return BenchComparison(
        versions=(a.program_version, b.program_version), ratios=ratios, notes=_notes(a)
    )


def _differences(a: BenchRecord, b: BenchRecord) -> list[str]:
    found = []
    for one in fields(BenchConditions):
        left, right = getattr(a.conditions, one.name), getattr(b.conditions, one.name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += [
                f"{one.name} {key}: {left.get(key, 'none')} and {right.get(key, 'none')}"
                for key in sorted({*left, *right})
                if left.get(key) != right.get(key)
            ]
        elif left != right:
            found.append(f"{one.name}: {left} and {right}")
    if set(a.samples_ms) != set(b.samples_ms):
        found.append(f"series: {sorted(a.samples_ms)} and {sorted(b.samples_ms)}")
    return found


def _notes(record: BenchRecord) -> tuple[str, ...]:
    unknown = [
        name
        for name in ("power_mode", "governor")
        if getattr(record.conditions, name) == NOT_AVAILABLE
    ]
    return tuple(f"{name} is not available in either: not known to be the same" for name in unknown)
