"""Records of measurements: round trip, the spread, and the refusal to compare unlike conditions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.bench.latencies import summarize
from edge_runtime.bench.machine_state import NOT_AVAILABLE, read_machine_state
from edge_runtime.bench.record import (
    BenchConditions,
    BenchRecord,
    compare_records,
    picture_set_sha256,
    read_record,
    write_record,
)
from edge_runtime.commands.bench_text import comparison_text, machine_text, record_text
from edge_runtime.errors import ConfigError

CONDITIONS = BenchConditions(
    mode="soak",
    cpu_model="a processor",
    power_mode="MAXN (0)",
    governor="performance",
    engine="onnxruntime",
    precisions=("int8",),
    versions={"onnxruntime": "1.2.3"},
    bundle_sha256="ab" * 32,
    pictures_sha256="cd" * 32,
    num_threads=1,
    num_workers=1,
    settings={"minutes": 2.0},
)
STATE = read_machine_state(root=Path("no such folder")).to_dict()
RECORD = BenchRecord(
    program_version="0.1.0",
    conditions=CONDITIONS,
    samples_ms={"latency": (10.0, 11.0, 12.5)},
    figures={"resident_growth_mib": None, "num_images": 3, "of_windows": [1, None]},
    machine={"before": STATE, "after": STATE, "throttled": NOT_AVAILABLE},
    timed_region="one eye",
)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_record(tmp_path / "a.json", RECORD)
    assert read_record(tmp_path / "a.json") == RECORD


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema_version": 1}', "\x00"])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.json"):
        read_record(tmp_path / "a.json")


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_record(tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_record(tmp_path / "no folder" / "a.json", RECORD)


def test_records_of_another_version_or_without_samples_are_refused() -> None:
    with pytest.raises(ConfigError, match="schema_version"):
        replace(RECORD, schema_version=2)
    for samples in ({}, {"latency": ()}):
        with pytest.raises(ConfigError, match="no sample"):
            replace(RECORD, samples_ms=samples)


def test_ratios_are_of_b_over_a() -> None:
    half = replace(RECORD, samples_ms={"latency": (5.0, 5.5, 6.25)}, program_version="0.2.0")
    comparison = compare_records(RECORD, half)
    assert comparison.ratios == {"latency": {"p50": 0.5, "p90": 0.5, "p99": 0.5}}
    assert (comparison.versions, comparison.notes) == (("0.1.0", "0.2.0"), ())
    assert "p50 0.500" in comparison_text(comparison)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"power_mode": "MODE_15W (2)"}, r"power_mode: MAXN \(0\) and MODE_15W \(2\)"),
        ({"governor": "powersave"}, "governor: performance and powersave"),
        ({"versions": {"onnxruntime": "1.3.0"}}, "versions onnxruntime: 1.2.3 and 1.3.0"),
        ({"versions": {}}, "versions onnxruntime: 1.2.3 and none"),
        ({"bundle_sha256": "ee" * 32}, "bundle_sha256"),
        ({"pictures_sha256": "ee" * 32}, "pictures_sha256"),
        ({"num_threads": 2}, "num_threads: 1 and 2"),
        ({"num_workers": 2}, "num_workers"),
        ({"engine": "tensorrt"}, "engine"),
        ({"precisions": ("fp32",)}, "precisions"),
        ({"cpu_model": "another"}, "cpu_model"),
        ({"mode": "latency"}, "mode"),
        ({"settings": {"minutes": 5.0}}, r"settings minutes: 2\.0 and 5\.0"),
    ],
)
def test_unlike_conditions_are_refused_by_name(change: dict[str, object], words: str) -> None:
    other = replace(RECORD, conditions=replace(CONDITIONS, **change))
    with pytest.raises(ConfigError, match=words):
        compare_records(RECORD, other)
    with pytest.raises(ConfigError, match="conditions"):
        compare_records(other, RECORD)


def test_every_difference_is_named_and_series_must_fit() -> None:
    other = replace(
        RECORD,
        conditions=replace(CONDITIONS, num_threads=4, governor="powersave"),
        samples_ms={"first": (1.0,)},
    )
    with pytest.raises(ConfigError) as caught:
        compare_records(RECORD, other)
    for word in ("num_threads", "governor", "series"):
        assert word in str(caught.value)


def test_what_neither_machine_tells_is_noted() -> None:
    blind = replace(RECORD, conditions=replace(CONDITIONS, power_mode=NOT_AVAILABLE))
    assert compare_records(blind, blind).notes == (
        "power_mode is not available in either: not known to be the same",
    )


def test_a_picture_set_has_no_order_but_counts_its_members() -> None:
    assert picture_set_sha256([b"a", b"b"]) == picture_set_sha256([b"b", b"a"])
    assert len({picture_set_sha256(s) for s in ([b"a"], [b"a", b"a"], [b"b"], [b"ab"])}) == 4


def test_texts_say_what_is_not_available() -> None:
    text = record_text(RECORD)
    assert "resident_growth_mib: not available" in text
    assert "of_windows: 1, not available" in text
    assert "p99.9 needs 1,000 samples" in text
    assert "temperatures_c not available" in machine_text(RECORD)
    hot = {**STATE, "temperatures_c": {"cpu": 41.0}}
    warmed = replace(RECORD, machine={**RECORD.machine, "before": hot, "after": hot})
    assert "cpu 41 -> 41" in machine_text(warmed)


def test_summary_matches_numpy(rng: np.random.Generator) -> None:
    values = list(rng.gamma(2.0, 3.0, 2000))
    times = summarize(values)
    assert times.p90_ms == pytest.approx(np.percentile(values, 90), abs=1e-4)
    assert times.p999_ms == pytest.approx(np.percentile(values, 99.9), abs=1e-4)
    assert times.jitter_ms == pytest.approx(times.p99_ms - times.p50_ms, abs=2e-4)
    assert times.iqr_ms == pytest.approx(np.subtract(*np.percentile(values, [75, 25])), abs=1e-4)
    assert times.cv == pytest.approx(np.std(values) / np.mean(values), abs=1e-4)
    assert (times.max_ms, times.num_samples) == (pytest.approx(max(values), abs=1e-4), 2000)
    assert summarize(values[:999]).p999_ms is None
    with pytest.raises(ConfigError, match="no latency"):
        summarize([])
