"""Any single failure in a build or in a write ends in a typed error, without leak or half entry."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bundle_factory import tiny_onnx
from fake_tensorrt.fake import VERSIONS, FakeTensorRT
from trt_factory import ORIN, build_here, installed, verified_bundle

from edge_runtime.bundle import Bundle
from edge_runtime.engines import trt_cache
from edge_runtime.engines.trt_builder import BuiltEngine, build_engine
from edge_runtime.engines.trt_cache import EngineCache
from edge_runtime.engines.trt_plan import LoadedPlan, ensure_plan
from edge_runtime.engines.trt_recipe import make_recipe
from edge_runtime.errors import EdgeScreenError, EngineError

# A workspace limit that was not taken is a warning in the log: the build may still succeed.
WARNED = {"IBuilderConfig.set_memory_pool_limit", "IBuilderConfig.get_memory_pool_limit"}
# What a build can do without: the kept timings. It goes on with an empty timing cache.
HARMLESS = {"IBuilderConfig.create_timing_cache", "IBuilderConfig.set_timing_cache"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return verified_bundle(tmp_path_factory.mktemp("failures") / "bundle")


def build(fake: FakeTensorRT, bundle: Bundle) -> BuiltEngine:
    recipe, _ = make_recipe(bundle, tensorrt_version=fake.version, precision="int8")
    return build_engine(
        fake.module,
        recipe,
        bundle.contents[recipe.file],
        workspace_bytes=64 << 20,
        timing_cache=b"",
        report=lambda _event: True,
    )


def outcome(fake: FakeTensorRT, bundle: Bundle) -> BuiltEngine | EdgeScreenError:
    """What a build gives, or the typed error that it ends with."""
    try:
        return build(fake, bundle)
    except EdgeScreenError as error:
        return error.with_traceback(None)


def failures(version: str, bundle: Bundle) -> Iterator[tuple[str, int, str]]:
    """Every call of a good build, with each way in which it can fail."""
    fake = FakeTensorRT(version)
    build(fake, bundle)
    for path, count in fake.calls.items():
        ways = ("raise",) if path in WARNED or "." not in path else ("raise", "none", "false")
        for call in range(1, count + 1):
            yield from ((path, call, how) for how in ways)


@pytest.mark.parametrize("how", ["raise", "none", "false"])
@pytest.mark.parametrize("version", VERSIONS)
def test_any_failure_of_the_binding_is_a_typed_error_and_leaks_nothing(
    version: str, how: str, bundle: Bundle
) -> None:
    tried = 0
    for path, call in [(p, c) for p, c, way in failures(version, bundle) if way == how]:
        fake = FakeTensorRT(version)
        fake.fail(path, call=call, how=how)
        if path in HARMLESS and call == 1:
            assert build(fake, bundle).plan
        else:
            assert isinstance(outcome(fake, bundle), EngineError), (path, call, how)
        assert fake.live() == 0, (path, call, how)
        tried += 1
    assert tried > 30


def test_every_build_of_the_fake_uses_the_methods_that_matter(bundle: Bundle) -> None:
    """The list above is taken from a build: it is empty of meaning if the build calls little."""
    found = {path for path, _, _ in failures("10.3.0", bundle)}
    expected = ("Builder.build_serialized_network", "OnnxParser.parse", "Runtime")
    assert found >= {*expected, "Runtime.deserialize_cuda_engine", "ITimingCache.serialize"}


class Killed(BaseException):
    """Stands for the end of the process: nothing after it has any effect."""


class Death:
    """Counts what reaches the disk; from the `at`-th operation on, nothing does."""

    def __init__(self, at: int | None, error: Callable[[], BaseException] = Killed) -> None:
        self.at, self.error, self.count = at, error, 0

    def dies_now(self) -> bool:
        self.count += 1
        return self.at is not None and self.count >= self.at

    def patched(self, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.dies_now():
                raise self.error()
            return function(*args, **kwargs)

        return call

    def opened(self, descriptor: int, mode: str) -> Any:
        """A file whose write may stop in the middle."""
        stream = real_fdopen(descriptor, mode)
        if "w" in mode:
            write = stream.write

            def half(data: bytes) -> int:
                if self.dies_now():
                    write(data[: len(data) // 2])
                    raise self.error()
                return int(write(data))

            return _Wrapped(stream, half)
        return stream


class _Wrapped:
    """A stream with another `write`."""

    def __init__(self, stream: Any, write: Callable[[bytes], int]) -> None:
        self._stream, self.write = stream, write

    def __enter__(self) -> _Wrapped:
        return self

    def __exit__(self, *reason: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


real_fdopen, real_rmtree = os.fdopen, shutil.rmtree


def patch_disk(patch: pytest.MonkeyPatch, death: Death) -> None:
    patch.setattr(tempfile, "mkstemp", death.patched(tempfile.mkstemp))
    patch.setattr(tempfile, "mkdtemp", death.patched(tempfile.mkdtemp))
    patch.setattr(os, "fsync", death.patched(os.fsync))
    patch.setattr(os, "fdopen", death.opened)
    patch.setattr(trt_cache.shutil, "rmtree", death.patched(trt_cache.shutil.rmtree))
    for name in ("replace", "chmod", "unlink"):
        patch.setattr(Path, name, death.patched(getattr(Path, name)))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRT]:
    monkeypatch.setattr("edge_runtime.engines.trt_plan.run_build", build_here)
    monkeypatch.setattr(
        os, "fsync", lambda _descriptor: None
    )  # costs time, tells these tests nothing
    with installed(FakeTensorRT("10.3.0"), monkeypatch) as made:
        yield made


def plan_of(bundle: Bundle, cache_dir: Path, *, rebuild: bool = False) -> LoadedPlan:
    return ensure_plan(bundle, cache_dir=cache_dir, precision="int8", device=ORIN, rebuild=rebuild)


def num_operations(bundle: Bundle, cache_dir: Path, patch: pytest.MonkeyPatch) -> int:
    """How many operations one rebuild makes."""
    death = Death(None)
    with patch.context() as inner:
        patch_disk(inner, death)
        plan_of(bundle, cache_dir, rebuild=True)
    return death.count


def check_whole(bundle: Bundle, cache_dir: Path, expected: bytes) -> None:
    """What is there is the whole entry or none; the next build works and leaves nothing behind."""
    cache = EngineCache(cache_dir, bundle.sha256)
    for side in cache.folder.glob("*.json"):
        with contextlib.suppress(EngineError):  # refused aloud, and rebuilt below
            assert trt_cache.read_entry(side.with_suffix(".plan"), side.stem).plan == expected
    loaded = plan_of(bundle, cache_dir)
    assert loaded.plan == expected
    if not loaded.was_built:
        plan_of(bundle, cache_dir, rebuild=True)  # sweeps
    assert not plan_of(bundle, cache_dir).was_built
    kinds = sorted(path.suffix or path.name for path in cache.folder.iterdir())
    assert kinds == [".json", ".lock", ".plan"]
    timings = sorted(path.suffix or path.name for path in (cache_dir / "timings").iterdir())
    assert timings == [".cache", ".lock"]


@pytest.mark.parametrize("entry_was_there", [False, True])
def test_a_kill_at_any_write_leaves_no_half_written_entry(
    entry_was_there: bool,
    fake: FakeTensorRT,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = plan_of(bundle, tmp_path / "good").plan
    total = num_operations(bundle, tmp_path / "good", monkeypatch)
    assert total > 12
    for at in range(1, total + 1):
        cache_dir = tmp_path / f"at{at}"
        if entry_was_there:
            shutil.copytree(tmp_path / "good", cache_dir)
        with monkeypatch.context() as patch:
            patch_disk(patch, Death(at))
            try:
                plan_of(bundle, cache_dir, rebuild=True)
            except Killed:
                pass
            else:
                assert at > total - 2, at  # a fresh cache has less to remove
        check_whole(bundle, cache_dir, expected)
    assert fake.live() == 0


def test_a_full_disk_at_any_write_is_a_typed_error_and_leaves_nothing(
    fake: FakeTensorRT, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = num_operations(bundle, tmp_path / "good", monkeypatch) - 3  # unlink, and two rmtree
    expected = plan_of(bundle, tmp_path / "good").plan
    refused = 0
    for at in range(1, total + 1):
        cache_dir = tmp_path / f"at{at}"
        with monkeypatch.context() as patch:
            patch_disk(patch, Death(at, lambda: OSError(28, "No space left on device")))
            patch.setattr(trt_cache.shutil, "rmtree", real_rmtree)  # removing needs no space
            try:
                loaded = plan_of(bundle, cache_dir)
            except EdgeScreenError as error:
                refused += "No space left" in str(error)
            else:
                refused += "the next build will be slower" in loaded.messages[-1]
        check_whole(bundle, cache_dir, expected)
    assert refused == total
    assert fake.live() == 0


_FOREVER = """
import sys
from pathlib import Path
from edge_runtime.bundle import read_bundle
from edge_runtime.engines import trt_plan
from trt_factory import ORIN, build_here
trt_plan.run_build = build_here
bundle = read_bundle(Path(sys.argv[1]), trusted_keys=Path(sys.argv[2]))
print("ready", flush=True)
while True:
    trt_plan.ensure_plan(
        bundle, cache_dir=Path(sys.argv[3]), precision="int8", device=ORIN, rebuild=True
    )
"""


@pytest.mark.slow
def test_real_kills_at_random_moments_leave_a_whole_entry_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: Any
) -> None:
    bundle = verified_bundle(tmp_path / "bundle")
    arguments = [str(tmp_path / name) for name in ("bundle", "trusted_keys", "cache")]
    with installed(FakeTensorRT("10.3.0"), monkeypatch):
        monkeypatch.setattr("edge_runtime.engines.trt_plan.run_build", build_here)
        expected = plan_of(bundle, tmp_path / "good").plan
        for _ in range(8):
            child = subprocess.Popen(
                [sys.executable, "-c", _FOREVER, *arguments], stdout=subprocess.PIPE
            )
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(float(rng.uniform(0.02, 0.2)))
            child.send_signal(signal.SIGKILL)
            child.wait()
            child.stdout.close()
            check_whole(bundle, tmp_path / "cache", expected)


def test_the_tiny_graph_is_what_is_built(bundle: Bundle) -> None:
    assert bundle.model_bytes("int8") == tiny_onnx()
