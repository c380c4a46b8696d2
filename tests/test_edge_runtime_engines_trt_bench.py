"""Timing TensorRT: every row names what it ran on, and layers are timed apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_factory import BuiltBundle, build_bundle, fundus_png
from click.testing import CliRunner, Result
from trt_factory import ORIN, build_here
from trt_machine import VERSIONS, Machine, make_machine

from edge_runtime.bench.stages import run_bench
from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.cli import main
from edge_runtime.commands.bench_text import bench_text
from edge_runtime.engines.trt_plan import ensure_plan
from edge_runtime.engines.trt_profile import profile_layers
from edge_runtime.errors import ConfigError, EngineError, EngineNotBuiltError


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    return build_bundle(tmp_path_factory.mktemp("trt_bench") / "bundle")


@pytest.fixture(scope="module")
def bundle(built: BuiltBundle) -> Bundle:
    return read_bundle(built.folder, trusted_keys=built.trusted_keys)


@pytest.fixture
def jetson(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path
) -> Callable[..., Machine]:
    """Makes a machine on which engines of the given precisions were built."""
    monkeypatch.setattr("edge_runtime.engines.trt_plan.run_build", build_here)
    monkeypatch.setattr("edge_runtime.engines.trt_plan.read_device", lambda: ORIN)
    monkeypatch.setenv("EDGE_SCREEN_ENGINE_CACHE", str(tmp_path / "cache"))

    def make(*precisions: str, **settings: object) -> Machine:
        machine = make_machine(monkeypatch, **settings)  # type: ignore[arg-type]
        for precision in precisions:
            ensure_plan(bundle, cache_dir=tmp_path / "cache", precision=precision)
        return machine

    return make


@pytest.mark.parametrize("binding", ["pycuda", "cuda-python"])
def test_every_row_names_engine_memory_and_graph(
    jetson: Callable[..., Machine], bundle: Bundle, binding: str
) -> None:
    machine = jetson("fp32", "int8", binding=binding)
    report = run_bench(bundle, [fundus_png()], repeats=2, warmup=0, engine="tensorrt")
    assert set(report.stages) == set(report.engines) == {"fp32", "int8"}
    value = json.loads(json.dumps(report.to_dict()))
    assert (value["engine"], value["tensorrt"]) == ("tensorrt", "measured")
    for facts in value["engines"].values():
        assert facts["details"]["memory"].startswith("mapped")
        graph = facts["details"]["cuda_graph"]
        assert graph == "captured" if binding == "cuda-python" else graph.startswith("no: pycuda")
        assert bool(facts["warnings"]) == (binding == "pycuda")
    text = bench_text(report)
    assert "engine tensorrt int8: " in text
    assert "not measured" not in text
    machine.assert_clean()


def test_fp16_has_a_row_where_it_was_built(jetson: Callable[..., Machine], bundle: Bundle) -> None:
    jetson("fp32", "fp16", "int8")
    report = run_bench(bundle, [fundus_png()], repeats=1, warmup=0, engine="tensorrt")
    assert set(report.stages) == {"fp32", "int8", "fp16"}
    assert "fp16 p50" in bench_text(report)


def test_an_engine_that_was_not_built_is_named_and_nothing_stays_open(
    jetson: Callable[..., Machine], bundle: Bundle
) -> None:
    machine = jetson("fp32")
    with pytest.raises(EngineNotBuiltError, match="edge-screen engine build --precision int8"):
        run_bench(bundle, [fundus_png()], repeats=1, engine="tensorrt")
    machine.assert_clean()


def test_auto_is_not_timed(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="name 'onnxruntime' or 'tensorrt'"):
        run_bench(bundle, [fundus_png()], engine="auto")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_layer_has_its_time(
    jetson: Callable[..., Machine], bundle: Bundle, version: str
) -> None:
    machine = jetson("int8", version=version)
    profile = profile_layers(bundle, num_runs=7)
    assert profile.num_runs == 7
    assert len(profile.layers) == 9  # nodes of the tiny graph
    assert profile.sum_of_means_ms == pytest.approx(9 * 0.01)
    assert sum(layer.share for layer in profile.layers) == pytest.approx(1.0, abs=1e-3)
    assert profile.details["cuda_graph"] == "no: per-layer times need plain enqueueing"
    machine.assert_clean()


def test_the_warm_up_is_not_in_the_times(jetson: Callable[..., Machine], bundle: Bundle) -> None:
    from edge_runtime.engines import trt_profile

    jetson("int8")
    kept: list[int] = []
    summary = trt_profile._summary

    def counting(times: dict[str, list[float]], *rest: object) -> object:
        kept.extend(len(values) for values in times.values())
        return summary(times, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trt_profile, "_summary", counting)
        profile_layers(bundle, num_runs=3)
    assert set(kept) == {3}


def test_a_profile_without_layers_is_an_error() -> None:
    from edge_runtime.engines import trt_profile

    with pytest.raises(EngineError, match="reported no layer"):
        trt_profile._summary({}, "int8", 1, {})


def test_a_profile_that_fails_leaves_nothing(
    jetson: Callable[..., Machine], bundle: Bundle
) -> None:
    machine = jetson("int8")
    machine.tensorrt.fail("IExecutionContext.execute_async_v3", call=12, how="false")
    with pytest.raises(EngineError, match="returned False"):
        profile_layers(bundle, num_runs=5)
    machine.assert_clean()
    with pytest.raises(ConfigError, match="num_runs"):
        profile_layers(bundle, num_runs=0)


def bench(built: BuiltBundle, *arguments: object) -> Result:
    words = ["bench", built.folder, "--trusted-keys", built.trusted_keys, "--repeats", 2]
    return CliRunner().invoke(main, [str(word) for word in (*words, *arguments)])


def test_the_command_writes_layer_times(
    jetson: Callable[..., Machine], built: BuiltBundle, tmp_path: Path
) -> None:
    jetson("fp32", "int8")
    path = tmp_path / "layers.json"
    result = bench(built, "--engine", "tensorrt", "--layers", path, "--json")
    assert result.exit_code == 0, result.output
    value = json.loads(path.read_text())
    assert (value["schema_version"], value["num_runs"]) == (1, 2)
    assert {"name", "p50_ms", "mean_ms", "share"} == set(value["layers"][0])
    assert bench(built, "--layers", path).exit_code == 2
    assert bench(built, "--engine", "tensorrt", "--layers", tmp_path).exit_code == 2


def test_without_tensorrt_the_row_says_what_to_do(built: BuiltBundle) -> None:
    result = bench(built)
    assert result.exit_code == 0
    assert "not measured; build an engine on the device and give --engine tensorrt" in result.output
    assert "engine onnxruntime int8: " in result.output
