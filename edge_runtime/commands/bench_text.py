"""Measurements in words for a terminal: the spread, the mode's figures, the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_runtime.bench.latencies import StageTimes, summarize
from edge_runtime.bench.machine_state import NOT_AVAILABLE
from edge_runtime.bench.record import BenchComparison, BenchRecord
from edge_runtime.bench.stages import TENSORRT_ROW, TIMED_REGION, BenchReport
from edge_runtime.commands.checks_text import synthetic_lines
from edge_runtime.engines import EngineFacts
from edge_runtime.result import NOTICE

__all__ = ["bench_text", "comparison_text", "machine_text", "record_text", "spread_text"]


def bench_text(report: BenchReport) -> str:
    """Return what `edge-screen bench` prints."""
    lines = [
        f"{report.bundle_name} {report.bundle_version}: {report.num_images} picture(s), "
        f"{report.num_rounds} rounds after {report.num_warmup_rounds} to warm up, "
        f"{report.num_threads} thread(s)",
        *synthetic_lines(report.synthetic),
        f"{'latency_ms':<14}"
        + "".join(f"{p + ' p50':>12}{'p90':>9}{'p99':>9}" for p in report.stages),
    ]
    for stage in report.stages["fp32"]:
        times = [stages[stage] for stages in report.stages.values()]
        lines.append(
            f"{stage:<14}"
            + "".join(f"{t.p50_ms:>12.2f}{t.p90_ms:>9.2f}{t.p99_ms:>9.2f}" for t in times)
        )
    ratios = ", ".join(f"{k} {v:.2f}" for k, v in report.ratio_fp32_to_int8.items())
    lines += [
        *([f"{'TensorRT':<14}{TENSORRT_ROW}"] if report.engine != "tensorrt" else []),
        *(line for p, facts in report.engines.items() for line in _facts_lines(report, p, facts)),
        f"FP32 / INT8, median over rounds: {ratios}",
        f"timed: {TIMED_REGION}",
        ", ".join(f"{k} {v}" for k, v in report.machine.items()),
        NOTICE,
    ]
    return "\n".join(lines)


def spread_text(stages: Mapping[str, Mapping[str, StageTimes]]) -> str:
    """Return the spread of the whole, a line a precision."""
    return "\n".join(
        _spread_line(f"{precision} total", times["total"]) for precision, times in stages.items()
    )


def record_text(record: BenchRecord) -> str:
    """Return series and figures of a mode, and what is inside a sample."""
    conditions = record.conditions
    lines = [
        f"{conditions.mode}: {conditions.engine} {', '.join(conditions.precisions)}, "
        f"{conditions.num_workers} worker(s), {conditions.num_threads} thread(s)"
    ]
    lines += [_spread_line(name, summarize(v)) for name, v in record.samples_ms.items()]
    lines += [f"{name}: {_value(value)}" for name, value in record.figures.items()]
    return "\n".join([*lines, f"timed: {record.timed_region}", NOTICE])


def machine_text(record: BenchRecord) -> str:
    """Return power mode, clocks, temperatures and throttling, before and after."""
    before, after = record.machine["before"], record.machine["after"]
    lines = [
        f"machine    {record.conditions.cpu_model}",
        f"power mode {before['power_mode']}, governor {before['governor']}",
    ]
    for title, key in (
        ("clocks_mhz", "clocks_mhz"),
        ("temperatures_c", "temperatures_c"),
        ("power_mw", "power_mw"),
    ):
        lines.append(f"{title:<14} {_before_after(before[key], after[key])}")
    return "\n".join([*lines, f"throttled  {record.machine['throttled']}"])


def comparison_text(comparison: BenchComparison) -> str:
    """Return B over A, a line a series."""
    a, b = comparison.versions
    lines = [f"same conditions; A is edge-screen {a}, B {b}; B / A, below 1 B is faster"]
    lines += [
        f"{name:<20}" + "".join(f"  {word} {ratio:.3f}" for word, ratio in ratios.items())
        for name, ratios in comparison.ratios.items()
    ]
    lines += [f"note: {text}" for text in comparison.notes]
    return "\n".join([*lines, NOTICE])


def _spread_line(name: str, times: StageTimes) -> str:
    late = "needs 1,000 samples" if times.p999_ms is None else f"{times.p999_ms:.2f}"
    return (
        f"{name:<14} latency_ms p50 {times.p50_ms:.2f}  p90 {times.p90_ms:.2f}  "
        f"p99 {times.p99_ms:.2f}  p99.9 {late}  mean {times.mean_ms:.2f}  "
        f"jitter (p99 - p50) {times.jitter_ms:.2f}  IQR {times.iqr_ms:.2f}  CV {times.cv:.3f}  "
        f"n {times.num_samples}"
    )


def _before_after(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    if not after:
        return NOT_AVAILABLE
    return ", ".join(
        f"{name} {before[name]:.0f} -> {value:.0f}" if name in before else f"{name} {value:.0f}"
        for name, value in after.items()
    )


def _value(value: Any) -> str:
    if value is None:
        return NOT_AVAILABLE
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(one) for one in value)
    return str(value)


def _facts_lines(report: BenchReport, precision: str, facts: EngineFacts) -> list[str]:
    details = ", ".join(f"{name} {text}" for name, text in facts.details.items())
    warnings = [f"  warning: {text}" for text in facts.warnings]
    return [f"engine {report.engine} {precision}: {details}", *warnings]
