"""The benchmark interleaves fairly and says what it timed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bundle_factory import build_bundle, fundus_png

from edge_runtime.bench import stages as bench
from edge_runtime.bench.latencies import summarize
from edge_runtime.bench.stages import BENCH_STAGES, run_bench
from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.commands.bench_text import bench_text
from edge_runtime.errors import ConfigError, ImageUnreadableError
from edge_runtime.screener import Screener

IMAGES = [fundus_png(), fundus_png(seed=1)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    built = build_bundle(tmp_path_factory.mktemp("bench") / "bundle")
    return read_bundle(built.folder, trusted_keys=built.trusted_keys)


def test_report_has_every_stage_of_both_precisions(bundle: Bundle) -> None:
    ticks: list[int] = []
    report = run_bench(bundle, IMAGES, repeats=6, warmup=2, progress=ticks.append)
    assert ticks == [1] * 8
    assert set(report.stages) == {"fp32", "int8"}
    for stages in report.stages.values():
        assert tuple(stages) == BENCH_STAGES
        for times in stages.values():
            assert 0.0 <= times.min_ms <= times.p50_ms <= times.p90_ms <= times.p99_ms
            assert times.p99_ms <= times.max_ms
        parts = sum(stages[s].min_ms for s in ("preprocess", "quality", "inference"))
        assert stages["total"].max_ms >= parts
    value = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert value["tensorrt"].startswith("not measured")
    assert "without start-up" in value["timed_region"]
    assert set(value["ratio_fp32_to_int8"]) == {"inference", "total"}
    text = bench_text(report)
    assert "not measured" in text
    assert "FP32 / INT8" in text


def test_precisions_alternate_and_warm_up_is_not_counted(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    original = Screener.screen

    def record(self: Screener, data: bytes) -> object:
        result = original(self, data)
        order.append(result.engine.precision)
        return result

    monkeypatch.setattr(Screener, "screen", record)
    report = run_bench(bundle, IMAGES[:1], repeats=3, warmup=1)
    assert order == ["int8", "fp32", "fp32", "int8", "int8", "fp32", "fp32", "int8"]
    assert report.num_rounds == 3


def test_ratio_is_the_median_over_rounds_of_the_same_round() -> None:
    samples = {
        "fp32": {"inference": [2.0, 2.0, 9.0, 9.0, 4.0, 4.0], "total": [1.0] * 6},
        "int8": {"inference": [1.0, 1.0, 3.0, 3.0, 1.0, 1.0], "total": [2.0] * 6},
    }
    assert bench._ratios(samples, num_images=2) == {"inference": 3.0, "total": 0.5}


def test_percentiles_match_numpy() -> None:
    values = list(np.random.default_rng(0).gamma(2.0, 3.0, 500))
    times = summarize(values)
    assert times.p90_ms == pytest.approx(np.percentile(values, 90), abs=1e-4)
    assert times.max_ms == pytest.approx(max(values), abs=1e-4)


@pytest.mark.parametrize("data", [b"not a picture", Path(__file__).read_bytes()])
def test_a_picture_that_does_not_reach_the_model_is_refused(bundle: Bundle, data: bytes) -> None:
    with pytest.raises(ImageUnreadableError, match="bench picture 1"):
        run_bench(bundle, [data], repeats=1, warmup=0)


def test_counts_are_checked(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        run_bench(bundle, [], repeats=1)
    with pytest.raises(ConfigError, match="repeats"):
        run_bench(bundle, IMAGES, repeats=0)
