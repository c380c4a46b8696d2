"""Screening with TensorRT from bundle to answer: chosen, opened, refused, and never 'no refer'."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle_factory import BuiltBundle, build_bundle, fundus_png
from click.testing import CliRunner, Result
from trt_factory import ORIN, build_here
from trt_machine import VERSIONS, Machine, make_machine

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.cli import main
from edge_runtime.engines import open_engine
from edge_runtime.engines.trt_options import TrtOptions
from edge_runtime.engines.trt_plan import LoadedPlan, ensure_plan
from edge_runtime.errors import (
    ConfigError,
    EngineError,
    EngineNotBuiltError,
    GateRefusedError,
    VerificationError,
)
from edge_runtime.examination import Examination
from edge_runtime.result import Decision
from edge_runtime.screener import FP16_WARNING, Screener

FEW = TrtOptions(warmup_runs=1)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    return build_bundle(tmp_path_factory.mktemp("trt_open") / "bundle", threshold=0.45)


@pytest.fixture(scope="module")
def bundle(built: BuiltBundle) -> Bundle:
    return read_bundle(built.folder, trusted_keys=built.trusted_keys)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    """Makes a machine on which engines are built in this process."""

    def make(**settings: object) -> Machine:
        monkeypatch.setattr("edge_runtime.engines.trt_plan.run_build", build_here)
        monkeypatch.setattr("edge_runtime.engines.trt_plan.read_device", lambda: ORIN)
        return make_machine(monkeypatch, **settings)  # type: ignore[arg-type]

    return make


def build_plan(bundle: Bundle, cache: Path, precision: str = "int8") -> LoadedPlan:
    return ensure_plan(bundle, cache_dir=cache, precision=precision)


@pytest.mark.parametrize("binding", ["pycuda", "cuda-python"])
@pytest.mark.parametrize("version", VERSIONS)
def test_screening_decides_as_onnxruntime_does(
    start: Callable[..., Machine],
    built: BuiltBundle,
    bundle: Bundle,
    cache: Path,
    version: str,
    binding: str,
) -> None:
    machine = start(version=version, binding=binding)
    plan = build_plan(bundle, cache)
    settings = {"trusted_keys": built.trusted_keys, "cache_dir": cache, "tensorrt": FEW}
    here = Screener.open(built.folder, engine="tensorrt", **settings)  # type: ignore[arg-type]
    there = Screener.open(built.folder, engine="onnxruntime", **settings)  # type: ignore[arg-type]
    seen = set()
    for seed in range(4):
        examination = Examination.both(od=fundus_png(seed=seed), os=fundus_png(seed=seed + 50))
        mine, theirs = here.screen(examination), there.screen(examination)
        seen.add(mine.disposition)
        assert mine.disposition is theirs.disposition
        assert [[f.labels for f in eye.fields] for eye in mine.eyes] == [
            [f.labels for f in eye.fields] for eye in theirs.eyes
        ]
    assert seen & {Decision.REFER, Decision.NO_REFER}
    engine = mine.to_dict()["engine"]
    assert (engine["name"], engine["precision"]) == ("tensorrt", "int8")
    assert engine["details"]["tensorrt"] == version
    assert engine["details"]["plan"] == plan.key[:16]
    assert engine["details"]["cuda_binding"].startswith(binding)
    here.close()
    there.close()
    machine.assert_clean()


@pytest.mark.parametrize("engine", ["tensorrt", "auto"])
@pytest.mark.parametrize("by", [1.0, -1.0, float("nan")])
def test_an_engine_that_computes_something_else_is_refused_before_the_first_patient(
    start: Callable[..., Machine],
    built: BuiltBundle,
    bundle: Bundle,
    cache: Path,
    engine: str,
    by: float,
) -> None:
    """Wrong logits that are finite look like any others, and -1 would clear the diseased."""
    machine = start()
    build_plan(bundle, cache)

    def compute(session: object, names: list[str], inputs: dict[str, object]) -> list[np.ndarray]:
        answer = session.run(names, inputs)  # type: ignore[attr-defined]
        return [v + by if n == "logits" else v for n, v in zip(names, answer, strict=True)]

    machine.tensorrt.compute = compute  # type: ignore[assignment]
    settings = {"trusted_keys": built.trusted_keys, "cache_dir": cache, "tensorrt": FEW}
    expected = (
        (EngineError, "not finite|no number") if by != by else (VerificationError, "recorded")
    )
    with pytest.raises(expected[0], match=expected[1]):
        Screener.open(built.folder, engine=engine, **settings)  # type: ignore[arg-type]
    machine.assert_clean()


def screen(built: BuiltBundle, image: Path, *arguments: object) -> Result:
    words = ["screen", built.folder, image, "--trusted-keys", built.trusted_keys, *arguments]
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_command_names_the_engine_and_why(
    start: Callable[..., Machine], built: BuiltBundle, bundle: Bundle, cache: Path, tmp_path: Path
) -> None:
    start()
    image = tmp_path / "eye.png"
    image.write_bytes(fundus_png())
    missing = screen(built, image, "--engine", "tensorrt", "--cache-dir", cache)
    assert missing.exit_code == EngineNotBuiltError.exit_code == 5
    assert "edge-screen engine build" in missing.output
    warned = screen(built, image, "--cache-dir", cache)
    assert "engine onnxruntime int8 (auto: ONNX Runtime on the CPU, because" in warned.output
    assert "warning: auto:" in warned.output
    build_plan(bundle, cache)
    for words in (("--engine", "tensorrt"), ("--engine", "auto"), ()):
        result = screen(built, image, *words, "--cache-dir", cache)
        assert result.exit_code in (0, 3)
        assert "engine tensorrt int8" in result.output
    (value,) = screen(built, image, "--cache-dir", cache, "--json").stdout.splitlines()
    assert json.loads(value)["engine"]["details"]["cuda_graph"] == "captured"


def test_loading_makes_no_folder_and_knows_a_tilde(
    start: Callable[..., Machine],
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A camera may have a read-only disk, and a service file does not expand a `~`."""
    start()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDGE_SCREEN_ENGINE_CACHE", "~/engines")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineNotBuiltError):
        open_engine(bundle, engine="tensorrt", tensorrt=FEW)
    open_engine(bundle, engine="auto", tensorrt=FEW).close()
    assert not (tmp_path / "engines").exists()
    build_plan(bundle, tmp_path / "engines")
    opened = open_engine(bundle, engine="auto", tensorrt=FEW)
    assert opened.name == "tensorrt"
    opened.close()


def test_any_failure_of_the_device_is_ungradable(
    start: Callable[..., Machine], built: BuiltBundle, bundle: Bundle, cache: Path
) -> None:
    machine = start(binding="pycuda")
    build_plan(bundle, cache)
    # With a threshold of 0.45 this eye is cleared where nothing fails.
    image = next(
        png
        for png in (fundus_png(seed=seed) for seed in range(40))
        if dispositions(built, cache, machine, png, None) == [Decision.NO_REFER]
    )
    for offset in range(5 + 4 + 2):  # copies to the GPU, copies from it, and the wait
        assert dispositions(built, cache, machine, image, offset) == [Decision.UNGRADABLE]
    machine.gpu.fail_at = {}
    machine.assert_clean()


def test_a_bundle_that_is_refused_leaves_no_engine_open(
    start: Callable[..., Machine], tmp_path: Path, cache: Path
) -> None:
    """The INT8 gate is asked once the engine is open; the error is still held when we look."""
    unproven = build_bundle(tmp_path / "unproven", gate_status="not_shown")
    machine = start()
    build_plan(read_bundle(unproven.folder, trusted_keys=unproven.trusted_keys), cache)
    settings = {"trusted_keys": unproven.trusted_keys, "engine": "tensorrt", "cache_dir": cache}
    with pytest.raises(GateRefusedError) as held:
        Screener.open(unproven.folder, tensorrt=FEW, **settings)  # type: ignore[arg-type]
    machine.assert_clean()
    assert held.value.exit_code == 8


def dispositions(
    built: BuiltBundle, cache: Path, machine: Machine, image: bytes, failing: int | None
) -> list[Decision]:
    """Screen once; the CUDA call number `failing` of the run goes wrong."""
    options = replace(FEW, memory="copy", cuda_graph=False)
    with Screener.open(
        built.folder,
        trusted_keys=built.trusted_keys,
        engine="tensorrt",
        cache_dir=cache,
        tensorrt=options,
    ) as screener:
        if failing is not None:
            machine.gpu.fail_at = {len(machine.gpu.calls) + failing: "cudaErrorIllegalAddress"}
        result = screener.screen(image)
    if failing is not None:
        assert result.eyes[0].fields[0].quality.reasons == ("engine error",)
        assert result.eyes[0].fields[0].labels == ()
    return [eye.disposition for eye in result.eyes]


def test_a_hanging_device_is_ungradable(
    start: Callable[..., Machine], built: BuiltBundle, bundle: Bundle, cache: Path
) -> None:
    machine, gate = start(), threading.Event()
    build_plan(bundle, cache)

    def hang(session: object, names: list[str], inputs: dict[str, object]) -> object:
        gate.wait(20.0)
        return session.run(names, inputs)  # type: ignore[attr-defined]

    with Screener.open(
        built.folder,
        trusted_keys=built.trusted_keys,
        engine="tensorrt",
        cache_dir=cache,
        tensorrt=replace(FEW, run_timeout_s=0.7),
    ) as screener:
        machine.tensorrt.compute = hang  # type: ignore[assignment]
        late = screener.screen(fundus_png(), deadline_ms=400.0)
        hanging = screener.screen(fundus_png())
        gate.set()
    assert late.disposition is hanging.disposition is Decision.UNGRADABLE
    assert late.eyes[0].fields[0].quality.reasons == ("deadline exceeded",)
    assert late.eyes[0].fields[0].timings_ms["total"] < 10_000.0
    assert hanging.eyes[0].fields[0].quality.reasons == ("engine error",)
    assert "did not answer within 0.7 s" in str(hanging.eyes[0].fields[0].error)
    machine.assert_clean()


def test_auto_takes_a_built_engine_and_says_so(
    start: Callable[..., Machine], bundle: Bundle, cache: Path
) -> None:
    start()
    build_plan(bundle, cache)
    engine = open_engine(bundle, cache_dir=cache, tensorrt=FEW)
    assert engine.name == "tensorrt"
    assert engine.facts.details["chosen"] == "auto: a TensorRT engine was built here"
    engine.close()


def test_auto_without_a_built_engine_warns_in_every_result(
    start: Callable[..., Machine], built: BuiltBundle, cache: Path
) -> None:
    machine = start()
    with Screener.open(built.folder, trusted_keys=built.trusted_keys, cache_dir=cache) as screener:
        result = screener.screen(fundus_png())
    assert result.engine.name == "onnxruntime"
    (warning,) = [text for text in result.warnings if text.startswith("auto:")]
    assert "there is no int8 engine for TensorRT 10.3.0 on Orin" in warning
    assert "edge-screen engine build" in warning
    assert machine.gpu.calls == []


@pytest.mark.parametrize("engine", ["auto", "tensorrt"])
def test_a_broken_tensorrt_is_an_error_also_for_auto(
    start: Callable[..., Machine],
    bundle: Bundle,
    cache: Path,
    engine: str,
) -> None:
    machine = start(num_devices=0)
    build_plan(bundle, cache)
    with pytest.raises(EngineError, match="no GPU here"):
        open_engine(bundle, engine=engine, cache_dir=cache)
    machine.assert_clean()


def test_a_tensorrt_that_cannot_be_loaded_is_an_error_also_for_auto(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(EngineError, match=r"libnvinfer\.so\.10"):
        open_engine(bundle, cache_dir=tmp_path / "cache")


def test_tensorrt_without_a_built_engine_is_an_error(
    start: Callable[..., Machine], bundle: Bundle, cache: Path
) -> None:
    start()
    with pytest.raises(EngineNotBuiltError, match=r"edge-screen engine build --precision int8"):
        open_engine(bundle, engine="tensorrt", cache_dir=cache)


def test_an_engine_of_an_earlier_jetpack_is_not_used(
    start: Callable[..., Machine], bundle: Bundle, cache: Path
) -> None:
    start(version="8.6.1")
    build_plan(bundle, cache)
    start(version="10.3.0")
    with pytest.raises(EngineNotBuiltError, match=r"an engine for TensorRT 8\.6\.1 .* not used"):
        open_engine(bundle, engine="tensorrt", cache_dir=cache)


def test_a_damaged_engine_is_not_used(
    start: Callable[..., Machine], bundle: Bundle, cache: Path
) -> None:
    start()
    path = build_plan(bundle, cache).path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(EngineNotBuiltError, match="is damaged: its SHA-256 does not fit"):
        open_engine(bundle, engine="tensorrt", cache_dir=cache)


def test_fp16_is_built_run_and_warned_of(
    start: Callable[..., Machine], built: BuiltBundle, bundle: Bundle, cache: Path
) -> None:
    start()
    build_plan(bundle, cache, "fp16")
    with Screener.open(
        built.folder,
        trusted_keys=built.trusted_keys,
        engine="tensorrt",
        precision="fp16",
        cache_dir=cache,
        tensorrt=FEW,
    ) as screener:
        result = screener.screen(fundus_png())
    assert result.engine.precision == "fp16"
    assert FP16_WARNING in result.warnings


def test_fp16_is_never_replaced_by_onnxruntime(
    start: Callable[..., Machine], bundle: Bundle, cache: Path
) -> None:
    start()
    for engine in ("auto", "onnxruntime"):
        with pytest.raises(ConfigError, match="which ONNX Runtime does not have"):
            open_engine(bundle, engine=engine, precision="fp16", cache_dir=cache)


def test_fp16_on_tensorrt_11_is_refused_with_the_reason(
    start: Callable[..., Machine], bundle: Bundle, cache: Path
) -> None:
    start(version="11.4.0.106")
    with pytest.raises(EngineError, match="TensorRT 11 has no FP16 flag"):
        open_engine(bundle, engine="tensorrt", precision="fp16", cache_dir=cache)


def test_the_messages_of_the_plan_are_warnings(
    start: Callable[..., Machine], bundle: Bundle, cache: Path
) -> None:
    start(version="11.4.0.106")
    build_plan(bundle, cache)
    engine = open_engine(bundle, engine="tensorrt", cache_dir=cache, tensorrt=FEW)
    assert any("no model.int8fp16.onnx" in text for text in engine.facts.warnings)
    np.testing.assert_equal(engine.facts.details["typing"], "strong")
    engine.close()
