"""What `edge-screen bench` does; `edge_runtime.commands.bench_cli` only declares it."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cv2

from edge_runtime import __version__
from edge_runtime.bench.machine_state import MachineState, read_machine_state
from edge_runtime.bench.modes import (
    MODE_REGIONS,
    ModeResult,
    measure_cold_start,
    measure_idle_gap,
    measure_soak,
    measure_throughput,
)
from edge_runtime.bench.process_memory import peak_resident_mib
from edge_runtime.bench.record import (
    BenchConditions,
    BenchRecord,
    compare_records,
    picture_set_sha256,
    read_record,
    write_record,
)
from edge_runtime.bench.stages import TIMED_REGION, BenchReport, package_versions, run_bench
from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.commands.bench_text import (
    bench_text,
    comparison_text,
    machine_text,
    record_text,
    spread_text,
)
from edge_runtime.commands.outputs import refuse_overwriting
from edge_runtime.engines import EngineFacts, open_engine
from edge_runtime.errors import ConfigError, ImageUnreadableError
from edge_runtime.screener import Screener

__all__ = ["BenchRequest", "run_bench_command", "run_compare"]

Progress = Callable[[int], None]
_SOAK_TICKS = 10


@dataclass(frozen=True, kw_only=True)
class BenchRequest:
    """What the operator asked `edge-screen bench` for."""

    bundle_dir: Path
    images: tuple[Path, ...]
    mode: str
    repeats: int
    warmup: int
    num_threads: int
    num_workers: int
    gap_s: float
    minutes: float
    engine: str
    precision: str
    raw_path: Path | None
    layers_path: Path | None
    cache_dir: Path | None
    trusted_keys: Path | None


def run_bench_command(request: BenchRequest, *, as_json: bool) -> None:
    """Time the bundle on this machine, print the figures, keep the samples where asked."""
    places = {"--raw": request.raw_path, "--layers": request.layers_path}
    refuse_overwriting(
        {option: path for option, path in places.items() if path is not None},
        [(f"picture {number}", path) for number, path in enumerate(request.images, start=1)],
        bundle_dir=request.bundle_dir,
    )
    cv2.setNumThreads(1)  # one image a thread; OpenCV's own pool only adds CPU time
    bundle = read_bundle(request.bundle_dir, trusted_keys=request.trusted_keys)
    images = [_read_bytes(path) for path in request.images] or [bundle.golden().encoded]
    before = read_machine_state()
    if request.mode == "latency":
        report = _latency(bundle, images, request)
        record = _latency_record(bundle, images, request, report, before)
        text = "\n".join([bench_text(report), spread_text(report.stages)])
        printed = {**report.to_dict(), "figures": record.figures, "machine_state": record.machine}
    else:
        record = _mode_record(bundle, images, request, before)
        text, printed = record_text(record), record.to_dict(raw=False)
    if request.raw_path is not None:
        write_record(request.raw_path, record)
        click.echo(f"every sample written to {request.raw_path}", err=True)
    if as_json:
        _echo_json(printed)
    else:
        click.echo("\n".join([text, machine_text(record)]))
    if request.layers_path is not None:
        _write_layers(bundle, request, request.layers_path)


def run_compare(a: Path, b: Path, *, as_json: bool) -> None:
    """Print B over A; raise ConfigError (exit 2) when their conditions differ."""
    comparison = compare_records(read_record(a), read_record(b))
    if as_json:
        _echo_json(comparison.to_dict())
    else:
        click.echo(comparison_text(comparison))


def _latency(bundle: Bundle, images: Sequence[bytes], request: BenchRequest) -> BenchReport:
    with _progress(request.repeats + request.warmup, "rounds") as bar:
        return run_bench(
            bundle,
            images,
            repeats=request.repeats,
            warmup=request.warmup,
            num_threads=request.num_threads,
            engine=request.engine,
            cache_dir=request.cache_dir,
            progress=bar.update,
        )


def _latency_record(
    bundle: Bundle,
    images: Sequence[bytes],
    request: BenchRequest,
    report: BenchReport,
    before: MachineState,
) -> BenchRecord:
    samples = {
        f"{precision} {stage}": tuple(values)
        for precision, stages in report.samples_ms.items()
        for stage, values in stages.items()
        if values
    }
    # Of a process that holds every precision at once; a camera's holds one (cold-start).
    figures = {"peak_resident_mib_of_bench": peak_resident_mib()}
    return BenchRecord(
        program_version=__version__,
        conditions=_conditions(bundle, images, request, report.engines, before),
        samples_ms=samples,
        figures=figures,
        machine=_machine(before),
        timed_region=TIMED_REGION,
    )


def _mode_record(
    bundle: Bundle, images: Sequence[bytes], request: BenchRequest, before: MachineState
) -> BenchRecord:
    engine = open_engine(
        bundle,
        engine=request.engine,
        precision=request.precision,
        num_threads=request.num_threads,
        cache_dir=request.cache_dir,
    )
    facts = {request.precision: engine.facts}
    # What is timed decides nothing, so an unproven INT8 model may be timed.
    with Screener(bundle, engine, allow_unproven_int8=True) as screener:
        result = _measure(screener, images, request)
    return BenchRecord(
        program_version=__version__,
        conditions=_conditions(bundle, images, request, facts, before),
        samples_ms={name: tuple(values) for name, values in result.samples_ms.items()},
        figures=result.figures,
        machine=_machine(before),
        timed_region=MODE_REGIONS[request.mode],
    )


def _measure(screener: Screener, images: Sequence[bytes], request: BenchRequest) -> ModeResult:
    if request.mode == "throughput":
        with _progress(request.repeats + request.warmup, "rounds") as bar:
            return measure_throughput(
                screener,
                images,
                repeats=request.repeats,
                warmup=request.warmup,
                num_workers=request.num_workers,
                progress=bar.update,
            )
    if request.mode == "idle-gap":
        with _progress(request.repeats, "pauses") as bar:
            return measure_idle_gap(
                screener, images, gap_s=request.gap_s, count=request.repeats, progress=bar.update
            )
    if request.mode == "soak":
        with _progress(_SOAK_TICKS, "windows") as bar:
            return measure_soak(screener, images, minutes=request.minutes, progress=bar.update)
    screener.close()  # a cold start has the machine for itself
    return _cold_start(images, request)


def _cold_start(images: Sequence[bytes], request: BenchRequest) -> ModeResult:
    if len(images) != 1:
        raise ConfigError(f"{len(images)} pictures; a cold start screens one: give one IMAGE")
    with (
        tempfile.TemporaryDirectory() as folder,
        _progress(request.repeats + 1, "starts") as bar,
    ):
        picture = Path(folder) / "picture"
        picture.write_bytes(images[0])
        options = ["--engine", request.engine, "--precision", request.precision]
        options += ["--allow-unproven-int8"]
        for name, path in (
            ("--trusted-keys", request.trusted_keys),
            ("--cache-dir", request.cache_dir),
        ):
            options += [] if path is None else [name, str(path)]
        arguments = [str(request.bundle_dir), str(picture), *options]
        return measure_cold_start(arguments, count=request.repeats, progress=bar.update)


def _conditions(
    bundle: Bundle,
    images: Sequence[bytes],
    request: BenchRequest,
    engines: Mapping[str, EngineFacts],
    before: MachineState,
) -> BenchConditions:
    details = {
        f"{precision} {name}": text
        for precision, facts in engines.items()
        for name, text in facts.details.items()
    }
    settings = {"idle-gap": {"gap_s": request.gap_s}, "soak": {"minutes": request.minutes}}
    many = request.mode == "throughput"
    return BenchConditions(
        mode=request.mode,
        cpu_model=_cpu_model(),
        power_mode=before.power_mode,
        governor=before.governor,
        engine=request.engine,
        precisions=tuple(engines),
        versions={**package_versions(), **details},
        bundle_sha256=bundle.sha256,
        pictures_sha256=picture_set_sha256(images),
        num_threads=request.num_threads,
        num_workers=request.num_workers if many else 1,
        settings=settings.get(request.mode, {}),
    )


def _machine(before: MachineState) -> dict[str, Any]:
    after = read_machine_state()
    return {
        "before": before.to_dict(),
        "after": after.to_dict(),
        "throttled": after.throttled_since(before),
    }


def _cpu_model() -> str:
    """Board of a Jetson, else the processor's name, else its architecture."""
    for path, key in (
        (Path("/proc/device-tree/model"), None),
        (Path("/proc/cpuinfo"), "model name"),
    ):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if key is None:
            return text.replace("\0", "").strip()
        found = [line.partition(":")[2].strip() for line in text.splitlines() if key in line]
        if found:
            return found[0]
    return platform.machine()


def _progress(length: int, label: str) -> Any:
    return click.progressbar(length=length, label=label, file=sys.stderr)


def _write_layers(bundle: Bundle, request: BenchRequest, path: Path) -> None:
    """Write the time of every layer of the INT8 engine; TensorRT only."""
    from edge_runtime.engines.trt_profile import profile_layers

    profile = profile_layers(bundle, cache_dir=request.cache_dir, num_runs=request.repeats)
    try:
        path.write_text(json.dumps(profile.to_dict(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--layers {path} cannot be written ({error.strerror}); name another file"
        ) from error
    click.echo(f"layer times written to {path}", err=True)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageUnreadableError(f"{path} cannot be read ({error.strerror})") from error


def _echo_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, allow_nan=False, separators=(",", ":")))
