"""From bundle to plan on the fakes of all versions: build, cache, refusals, what is said aloud."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle_factory import LABELS, SIZE_PX, build_bundle
from fake_tensorrt.fake import VERSIONS, FakeTensorRT
from trt_factory import ORIN, build_here, installed, verified_bundle

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.engines.trt_cache import EngineCache
from edge_runtime.engines.trt_plan import LoadedPlan, TensorSpec, ensure_plan
from edge_runtime.errors import BundleSignatureError, ConfigError, EngineError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return verified_bundle(tmp_path_factory.mktemp("trt") / "bundle")


@pytest.fixture(params=VERSIONS)
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRT]:
    with installed(FakeTensorRT(request.param), monkeypatch) as made:
        yield made


@pytest.fixture
def jetpack6(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRT]:
    """TensorRT 10.3, building in this process."""
    monkeypatch.setattr("edge_runtime.engines.trt_plan.run_build", build_here)
    with installed(FakeTensorRT("10.3.0"), monkeypatch) as made:
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build in this process."""
    monkeypatch.setattr("edge_runtime.engines.trt_plan.run_build", build_here)


def plan_of(bundle: Bundle, cache_dir: Path, **changes: object) -> LoadedPlan:
    settings = {"precision": "int8", "device": ORIN, **changes}
    return ensure_plan(bundle, cache_dir=cache_dir, **settings)  # type: ignore[arg-type]


def test_a_built_plan_is_found_again(fake: FakeTensorRT, bundle: Bundle, tmp_path: Path) -> None:
    lines: list[str] = []
    built = plan_of(bundle, tmp_path / "cache", progress=lines.append)
    side = json.loads(built.path.with_suffix(".json").read_text())
    assert "INFO timing cache miss" in side["log"]
    found = plan_of(bundle, tmp_path / "cache")
    assert (built.was_built, found.was_built) == (True, False)
    assert built.plan == found.plan
    assert built.key == found.key
    assert built.recipe.tensorrt_version == fake.version
    assert any("this takes minutes, once" in line for line in lines)
    assert any("Building Engine" in line for line in lines) == (fake.version != "8.6.1")
    image = TensorSpec(
        name="image_nhwc", is_input=True, dtype="uint8", shape=(1, SIZE_PX, SIZE_PX, 3)
    )
    assert built.tensors[0] == image
    assert {one.name: one.shape for one in built.tensors}["logits"] == (1, len(LABELS))
    assert fake.calls == {}  # this process has only asked for names


def test_the_plan_runs_and_computes_what_the_bundle_computes(
    fake: FakeTensorRT, bundle: Bundle, tmp_path: Path
) -> None:
    trt = fake.module
    loaded = plan_of(bundle, tmp_path / "cache")
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(loaded.plan)
    context = engine.create_execution_context()
    memory = fake.memory
    for one in loaded.tensors:
        num_bytes = int(np.prod(one.shape)) * np.dtype(one.dtype).itemsize
        assert context.set_tensor_address(one.name, memory.alloc(num_bytes))  # type: ignore[attr-defined]
    golden = bundle.golden()
    memory.write(context.get_tensor_address("image_nhwc"), golden.image_nhwc[0].tobytes())
    assert context.execute_async_v3(0)
    data = memory.read(context.get_tensor_address("logits"), 4 * len(LABELS))
    logits = np.frombuffer(data, np.float32)
    np.testing.assert_allclose(logits, golden.logits["fp32"][0], atol=1e-6)


@pytest.mark.usefixtures("jetpack6")
def test_the_sidecar_says_how_the_plan_was_made(bundle: Bundle, tmp_path: Path) -> None:
    first = plan_of(bundle, tmp_path / "cache")
    again = plan_of(bundle, tmp_path / "cache", rebuild=True)
    assert again.was_built
    side = json.loads(first.path.with_suffix(".json").read_text())
    assert side["recipe"]["set_flags"] == ["FP16", "INT8"]
    assert side["device"]["name"] == "Orin"
    assert side["bundle_sha256"] == bundle.sha256
    assert side["timing_cache_was_warm"] is True
    assert side["workspace_bytes"] == 256 << 20


@pytest.mark.usefixtures("quick")
def test_without_the_strong_file_the_stand_in_is_said_aloud(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path
) -> None:
    with installed(FakeTensorRT("11.4.0.106"), monkeypatch):
        built = plan_of(bundle, tmp_path / "cache")
        found = plan_of(bundle, tmp_path / "cache")
    for loaded in (built, found):
        assert loaded.recipe.role == "int8"
        assert any("no model.int8fp16.onnx" in message for message in loaded.messages)
    side = json.loads(built.path.with_suffix(".json").read_text())
    assert "no model.int8fp16.onnx" in side["notes"][0]


@pytest.mark.usefixtures("quick")
def test_every_precision_that_a_version_has_is_built(
    fake: FakeTensorRT, bundle: Bundle, tmp_path: Path
) -> None:
    keys = set()
    for precision in ("fp32", "fp16", "int8"):
        if precision == "fp16" and fake.version.startswith("11"):
            with pytest.raises(EngineError, match="has no FP16 flag"):
                plan_of(bundle, tmp_path / "cache", precision=precision)
            continue
        keys.add(plan_of(bundle, tmp_path / "cache", precision=precision).key)
    assert len(keys) == (2 if fake.version.startswith("11") else 3)


@pytest.mark.usefixtures("quick")
def test_an_upgrade_rebuilds_and_says_why(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path
) -> None:
    with installed(FakeTensorRT("8.6.1"), monkeypatch):
        old = plan_of(bundle, tmp_path / "cache")
    with installed(FakeTensorRT("10.3.0"), monkeypatch):
        with pytest.raises(EngineError, match="differs in tensorrt_version, network_flags"):
            plan_of(bundle, tmp_path / "cache", if_missing="refuse")
        new = plan_of(bundle, tmp_path / "cache")
    assert new.was_built
    assert new.key != old.key
    assert "an engine for TensorRT 8.6.1 on Orin is there and is not used" in new.messages[0]


@pytest.mark.usefixtures("jetpack6")
def test_another_device_has_its_own_engine(bundle: Bundle, tmp_path: Path) -> None:
    plan_of(bundle, tmp_path / "cache")
    thor = replace(ORIN, name="Thor", compute_capability="11.0")
    other = plan_of(bundle, tmp_path / "cache", device=thor)
    assert other.was_built
    assert "was built on another device" in other.messages[0]


def damage_plan(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def cut_plan(path: Path) -> None:
    path.write_bytes(b"")


def remove_sidecar(path: Path) -> None:
    path.with_suffix(".json").unlink()


def remove_plan(path: Path) -> None:
    path.unlink()


def cut_sidecar(path: Path) -> None:
    side = path.with_suffix(".json")
    side.write_bytes(side.read_bytes()[:100])


def change_sidecar(path: Path) -> None:
    side = path.with_suffix(".json")
    value = json.loads(side.read_text())
    value["recipe"]["set_flags"] = ["FP16"]
    side.write_text(json.dumps(value))


def link_plan(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


@pytest.mark.parametrize(
    "harm",
    [damage_plan, cut_plan, remove_sidecar, remove_plan, cut_sidecar, change_sidecar, link_plan],
)
@pytest.mark.usefixtures("jetpack6")
def test_a_damaged_entry_is_never_used(harm: object, bundle: Bundle, tmp_path: Path) -> None:
    built = plan_of(bundle, tmp_path / "cache")
    harm(built.path)  # type: ignore[operator]
    with pytest.raises(EngineError, match="there is no int8 engine"):
        plan_of(bundle, tmp_path / "cache", if_missing="refuse")
    again = plan_of(bundle, tmp_path / "cache")
    assert again.was_built
    assert len(again.messages) == 1
    assert again.plan == built.plan
    assert not plan_of(bundle, tmp_path / "cache").was_built


@pytest.mark.usefixtures("jetpack6")
def test_an_entry_of_another_bundle_is_out_of_reach(bundle: Bundle, tmp_path: Path) -> None:
    other = verified_bundle(tmp_path / "other", seed=1)
    plan_of(bundle, tmp_path / "cache")
    built = plan_of(other, tmp_path / "cache")
    assert built.was_built
    assert built.path.parent.name == other.sha256


@pytest.mark.usefixtures("jetpack6")
def test_an_unsigned_bundle_gets_no_engine(tmp_path: Path) -> None:
    built = build_bundle(tmp_path / "bundle", signed=False)
    unsigned = read_bundle(built.folder, trusted_keys=None, require_signature=False)
    with pytest.raises(BundleSignatureError, match="verified bundle only"):
        plan_of(unsigned, tmp_path / "cache")


@pytest.mark.parametrize("mode", [0o777, 0o770])
@pytest.mark.usefixtures("jetpack6")
def test_a_cache_that_others_can_write_to_is_refused(
    mode: int, bundle: Bundle, tmp_path: Path
) -> None:
    cache_dir = tmp_path / "cache"
    cache_dir.mkdir()
    cache_dir.chmod(mode)
    with pytest.raises(ConfigError, match="written by others"):
        plan_of(bundle, cache_dir)


@pytest.mark.parametrize("changes", [{"precision": "int4"}, {"if_missing": "guess"}])
@pytest.mark.usefixtures("jetpack6")
def test_unknown_settings_are_refused(
    changes: dict[str, str], bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError):
        plan_of(bundle, tmp_path / "cache", **changes)


def test_without_tensorrt_the_error_says_where_it_comes_from(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(EngineError, match="comes with JetPack"):
        plan_of(bundle, tmp_path / "cache")


@pytest.mark.usefixtures("jetpack6")
def test_a_cache_that_is_a_link_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a link"):
        plan_of(bundle, tmp_path / "cache")
    assert list((tmp_path / "elsewhere").glob("*/*")) == []


@pytest.mark.usefixtures("jetpack6")
def test_two_builders_of_one_bundle_build_once(bundle: Bundle, tmp_path: Path) -> None:
    lines: list[str] = []
    cache = EngineCache(tmp_path / "cache", bundle.sha256)
    with ThreadPoolExecutor(2) as pool:
        with cache.building(lines.append):
            waiting = [
                pool.submit(plan_of, bundle, tmp_path / "cache", progress=lines.append)
                for _ in range(2)
            ]
            deadline = time.monotonic() + 10
            while len(lines) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(lines) == 2
        loaded = [one.result() for one in waiting]
    assert all("another process builds" in line for line in lines[:2])
    assert sorted(one.was_built for one in loaded) == [False, True]
    assert loaded[0].plan == loaded[1].plan


def test_timings_that_are_not_whole_are_not_used(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache", "ab" * 32)
    assert cache.timings("10.3.0", ORIN) == b""
    cache.store_timings("10.3.0", ORIN, b"timings")
    assert cache.timings("10.3.0", ORIN) == b"timings"
    assert cache.timings("10.3.1", ORIN) == b""
    (path,) = (tmp_path / "cache" / "timings").glob("*.cache")
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.timings("10.3.0", ORIN) == b""


@pytest.mark.usefixtures("jetpack6")
def test_a_cache_of_another_user_is_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(tmp_path / "cache", 4243, -1)  # root's own folders are trusted by everybody
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(ConfigError, match="belongs to another user"):
        plan_of(bundle, tmp_path / "cache")
