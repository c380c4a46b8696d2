"""The other ways to measure: every sample is there, and a refused picture is never timed short."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from bundle_factory import BuiltBundle, build_bundle, fundus_png
from click.testing import CliRunner, Result

from edge_runtime.bench.modes import (
    MODE_REGIONS,
    ModeResult,
    measure_cold_start,
    measure_idle_gap,
    measure_soak,
    measure_throughput,
)
from edge_runtime.cli import main
from edge_runtime.errors import EngineError, ImageUnreadableError
from edge_runtime.screener import Screener

IMAGES = [fundus_png(), fundus_png(seed=1)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    return build_bundle(tmp_path_factory.mktemp("modes") / "bundle")


@pytest.fixture
def screener(built: BuiltBundle) -> Iterator[Screener]:
    with Screener.open(built.folder, trusted_keys=built.trusted_keys) as opened:
        yield opened


def bench(built: BuiltBundle, *arguments: object) -> Result:
    words = ["bench", built.folder, "--trusted-keys", built.trusted_keys, *arguments]
    return CliRunner().invoke(main, [str(word) for word in words])


def test_throughput_counts_every_picture_of_every_worker(screener: Screener) -> None:
    ticks: list[int] = []
    result = measure_throughput(
        screener, IMAGES, repeats=3, warmup=1, num_workers=4, progress=ticks.append
    )
    assert len(result.samples_ms["latency"]) == 3 * 4 * 2
    rates = result.figures["images_per_s_of_rounds"]
    assert (len(rates), ticks) == (3, [1] * 4)
    assert min(rates) <= result.figures["images_per_s"] <= max(rates) + 0.01


def test_idle_gap_pauses_before_every_first_and_not_before_the_next(screener: Screener) -> None:
    events: list[str] = []
    original = screener.screen

    def record(data: bytes) -> object:
        events.append("screen")
        return original(data)

    screener.screen = record  # type: ignore[method-assign,assignment]
    result = measure_idle_gap(
        screener, IMAGES, gap_s=3.0, count=3, sleep=lambda s: events.append(f"sleep {s}")
    )
    assert events == ["screen", "screen", *["sleep 3.0", "screen", "screen"] * 3]
    assert [len(values) for values in result.samples_ms.values()] == [3, 3]
    ratios = [a / b for a, b in zip(*result.samples_ms.values(), strict=True)]
    assert result.figures["first_over_next"] == pytest.approx(sorted(ratios)[1], abs=1e-3)


def test_soak_runs_for_its_time_and_watches_what_grows(
    screener: Screener, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = iter([100.0, *[110.0] * 8, 112.5])
    monkeypatch.setattr("edge_runtime.bench.modes.resident_mib", lambda: next(resident))
    open_files = iter([9, *[9] * 8, 12])
    monkeypatch.setattr("edge_runtime.bench.modes.num_descriptors", lambda: next(open_files))
    seconds = count()  # the clock ticks a second a look
    result = measure_soak(screener, IMAGES, minutes=0.5, clock=lambda: float(next(seconds)))
    figures = result.figures
    assert figures["num_images"] == len(result.samples_ms["latency"]) >= 20
    assert (figures["resident_growth_mib"], figures["descriptor_growth"]) == (12.5, 3)
    p99 = figures["p99_ms_of_windows"]
    assert figures["p99_last_over_first"] == pytest.approx(p99[-1] / p99[0], abs=1e-3)


def test_soak_without_proc_says_not_available(
    screener: Screener, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("resident_mib", "num_descriptors", "peak_resident_mib"):
        monkeypatch.setattr(f"edge_runtime.bench.modes.{name}", lambda: None)
    figures = measure_soak(screener, IMAGES, minutes=1e-6).figures
    assert figures["resident_growth_mib"] is None
    assert figures["descriptor_growth"] is None


@pytest.mark.parametrize(
    ("measure", "settings"),
    [
        (measure_throughput, {"repeats": 1, "warmup": 0, "num_workers": 2}),
        (measure_idle_gap, {"gap_s": 0.0, "count": 2}),
        (measure_soak, {"minutes": 0.001}),
    ],
)
def test_a_picture_that_does_not_reach_the_model_is_refused(
    screener: Screener, measure: Callable[..., ModeResult], settings: dict[str, float]
) -> None:
    with pytest.raises(ImageUnreadableError, match="bench picture 2"):
        measure(screener, [IMAGES[0], b"not a picture"], **settings)


def test_cold_start_is_a_whole_process(built: BuiltBundle, tmp_path: Path) -> None:
    picture = tmp_path / "picture"
    picture.write_bytes(IMAGES[0])
    arguments = [str(built.folder), str(picture), "--trusted-keys", str(built.trusted_keys)]
    result = measure_cold_start(arguments, count=1)
    assert len(result.samples_ms["cold_start"]) == 1
    assert min(result.samples_ms["cold_start"]) > 50
    picture.write_bytes(b"not a picture")
    with pytest.raises(ImageUnreadableError, match="does not reach the model"):
        measure_cold_start(arguments, count=0)


@pytest.mark.slow
def test_a_process_that_prints_no_result_is_an_error(built: BuiltBundle) -> None:
    arguments = [str(built.folder), "picture", "--trusted-keys", str(built.trusted_keys)]
    with pytest.raises(EngineError, match="no result"):
        measure_cold_start([*arguments, "--no-such-option"], count=1)


@pytest.mark.parametrize("mode", ["throughput", "idle-gap", "soak"])
def test_the_command_reports_mode_machine_and_region(
    built: BuiltBundle, tmp_path: Path, mode: str
) -> None:
    raw = tmp_path / "raw.json"
    options = ("--mode", mode, "--repeats", 2, "--gap-s", 0, "--minutes", 0.001, "--raw", raw)
    result = bench(built, *options)
    assert result.exit_code == 0, result.output
    for words in (MODE_REGIONS[mode], "power mode ", "throttled", "not a medical device"):
        assert words in result.output
    value = json.loads(bench(built, *options, "--json").stdout)
    assert value["conditions"]["mode"] == mode
    assert "samples_ms" not in value
    assert value["summary"]
    assert json.loads(raw.read_text())["samples_ms"]


def test_raw_samples_are_kept_and_compared_only_with_their_like(
    built: BuiltBundle, tmp_path: Path
) -> None:
    first, second, other = (tmp_path / f"{name}.json" for name in "abc")
    for path, threads in ((first, 1), (second, 1), (other, 2)):
        result = bench(built, "--repeats", 3, "--warmup", 0, "--threads", threads, "--raw", path)
        assert result.exit_code == 0, result.output
    samples = json.loads(first.read_text())["samples_ms"]
    assert len(samples["int8 total"]) == len(samples["fp32 decode"]) == 3

    def compare(a: Path, b: Path, *more: str) -> Result:
        return CliRunner().invoke(main, ["bench", "--compare", str(a), str(b), *more])

    same = compare(first, second, "--json")
    assert same.exit_code == 0, same.output
    assert set(json.loads(same.stdout)["ratios"]) <= set(samples)
    assert "int8 total" in compare(first, second).output
    unlike = compare(first, other)
    assert unlike.exit_code == 2
    assert "num_threads: 1 and 2" in unlike.output


def test_wrong_usage_is_refused(built: BuiltBundle, tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["bench"]).exit_code == 2
    path = str(tmp_path / "a.json")
    both = CliRunner().invoke(main, ["bench", str(built.folder), "--compare", path, path])
    assert both.exit_code == 2
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    for picture in pictures:
        picture.write_bytes(IMAGES[0])
    assert bench(built, *pictures, "--mode", "cold-start").exit_code == 2
