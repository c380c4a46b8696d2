"""The building process: it answers, dies, hangs or babbles, and the parent says what happened."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundle_factory import tiny_onnx
from fake_tensorrt.fake import VERSIONS, FakeTensorRT
from onnx import helper
from trt_factory import installed, verified_bundle

from edge_runtime.bundle import Bundle
from edge_runtime.engines import trt_build_process
from edge_runtime.engines.trt_build_child import BuildOrder
from edge_runtime.engines.trt_build_process import BuildResult, run_build, workspace_limit
from edge_runtime.engines.trt_builder import build_engine
from edge_runtime.engines.trt_explain import Death, explain_death, explain_log
from edge_runtime.engines.trt_narrator import Narrator
from edge_runtime.engines.trt_recipe import make_recipe
from edge_runtime.errors import EngineError
from edge_runtime.machine_memory import available_bytes, num_oom_kills
from edge_runtime.strict_json import dataclass_to_dict

MIB = 1 << 20


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return verified_bundle(tmp_path_factory.mktemp("process") / "bundle")


@pytest.fixture
def work_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "work"
    folder.mkdir()
    yield folder
    left = {path.name for path in folder.iterdir()}
    assert left <= {"stderr", "plan", "timings"}


def run(fake: FakeTensorRT, bundle: Bundle, work_dir: Path, **changes: Any) -> BuildResult:
    recipe, _ = make_recipe(bundle, tensorrt_version=fake.version, precision="int8")
    onnx_bytes = changes.pop("onnx", bundle.contents[recipe.file])
    settings = {
        "workspace_bytes": 64 * MIB,
        "timing_cache": b"",
        "progress": lambda _line: None,
        **changes,
    }
    return run_build(recipe, onnx_bytes, work_dir=work_dir, **settings)


def quantised_onnx(zero_type: type = np.int8) -> bytes:
    """The tiny graph with one Q/DQ pair in front of its first convolution."""
    model = onnx.load_model_from_string(tiny_onnx())
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    pair = [
        helper.make_node("QuantizeLinear", [conv.input[0], "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
    ]
    at = list(model.graph.node).index(conv)
    nodes = [*model.graph.node[:at], *pair, *model.graph.node[at:]]
    nodes[at + 2].input[0] = "dq"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for name, value in (("scale", np.float32(1.0)), ("zero", zero_type(0))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_builds_a_quantised_graph(
    version: str, bundle: Bundle, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(FakeTensorRT(version), monkeypatch) as fake:
        cold = run(fake, bundle, work_dir, onnx=quantised_onnx())
        warm = run(fake, bundle, work_dir, onnx=quantised_onnx(), timing_cache=cold.timing_cache)
    assert "INFO timing cache miss" in cold.log
    assert "INFO timing cache hit" in warm.log
    assert cold.plan == warm.plan
    assert cold.num_log_lines_dropped == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_an_unsigned_zero_point_is_refused_where_the_parser_refuses_it(
    version: str, bundle: Bundle
) -> None:
    recipe, _ = make_recipe(bundle, tensorrt_version=version, precision="int8")
    refused = pytest.raises(EngineError, match="cannot parse the graph: this TensorRT cannot read")
    outcome = refused if version == "8.6.1" else contextlib.nullcontext()
    with FakeTensorRT(version).installed() as fake, outcome:
        build_engine(
            fake.module,
            recipe,
            quantised_onnx(np.uint8),
            workspace_bytes=MIB,
            timing_cache=b"",
            report=lambda _event: True,
        )


def test_stale_timings_are_replaced_and_said(bundle: Bundle) -> None:
    events: list[dict[str, Any]] = []
    recipe, _ = make_recipe(bundle, tensorrt_version="10.3.0", precision="int8")

    def report(event: dict[str, Any]) -> bool:
        events.append(event)
        return True

    with FakeTensorRT("10.3.0").installed() as fake:
        for stale in (b"nonsense", b'FAKECACHE["8.6.1/Orin/(8, 7)", []]'):
            built = build_engine(
                fake.module,
                recipe,
                tiny_onnx(),
                workspace_bytes=MIB,
                timing_cache=stale,
                report=report,
            )
            assert b"10.3.0" in built.timing_cache
    texts = [event["text"] for event in events if event["event"] == "log"]
    assert sum("timings do not fit" in text for text in texts) == 2


def test_a_build_stops_when_nobody_listens(bundle: Bundle) -> None:
    recipe, _ = make_recipe(bundle, tensorrt_version="10.3.0", precision="int8")
    with (
        FakeTensorRT("10.3.0").installed() as fake,
        pytest.raises(EngineError, match="was cancelled"),
    ):
        build_engine(
            fake.module,
            recipe,
            tiny_onnx(),
            workspace_bytes=MIB,
            timing_cache=b"",
            report=lambda _event: False,
        )


@pytest.mark.parametrize(
    ("path", "how", "text"),
    [
        ("Builder.build_serialized_network", "kill", "killed by SIGKILL, most likely"),
        ("Builder.build_serialized_network", "none", "could not build the engine"),
        ("Runtime.deserialize_cuda_engine", "none", "could not read the new engine back"),
        ("Builder", "raise", "injected: Builder"),
        ("OnnxParser.parse", "false", "cannot parse the graph"),
    ],
)
def test_failures_in_the_child_become_one_typed_error(
    path: str,
    how: str,
    text: str,
    bundle: Bundle,
    work_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeTensorRT("10.3.0")
    fake.fail(path, how=how)
    with installed(fake, monkeypatch), pytest.raises(EngineError, match="not built") as caught:
        run(fake, bundle, work_dir)
    assert text in str(caught.value)


def test_a_workspace_that_is_too_small_is_explained(
    bundle: Bundle, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeTensorRT("10.3.0", min_workspace_bytes=65 * MIB)
    with installed(fake, monkeypatch), pytest.raises(EngineError, match="no kernel fits") as caught:
        run(fake, bundle, work_dir)
    assert "insufficient workspace" in str(caught.value)
    assert "add swap" in str(caught.value)


def test_a_child_without_tensorrt_says_so(
    bundle: Bundle, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(EngineError, match="comes with JetPack"):
        run(FakeTensorRT("10.3.0"), bundle, work_dir)


def test_a_child_that_hangs_is_stopped(
    bundle: Bundle, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(trt_build_process, "_MODULE", "this_test_hangs")
    (work_dir.parent / "this_test_hangs.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(work_dir.parent))
    with pytest.raises(EngineError, match="stopped after 1 s"):
        run(FakeTensorRT("10.3.0"), bundle, work_dir, limit_s=0.6, progress=lines.append)
    assert any("the builder is at work" in line for line in lines)


def test_a_child_that_cannot_be_started_is_a_typed_error(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, work_dir: Path
) -> None:
    """A board that is short of memory may refuse the process itself."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(trt_build_process.subprocess, "Popen", refuse)
    with pytest.raises(EngineError, match="Cannot allocate memory; close other programs"):
        run(FakeTensorRT("10.3.0"), bundle, work_dir)


def test_a_plan_that_cannot_be_read_back_is_a_typed_error(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, work_dir: Path
) -> None:
    def refuse(_path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    fake = FakeTensorRT("10.3.0")
    with installed(fake, monkeypatch):
        monkeypatch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(EngineError, match=r"was not built: .*Input/output error"):
            run(fake, bundle, work_dir)


def test_a_child_that_crashes_is_quoted(
    bundle: Bundle, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt_build_process, "_MODULE", "this_test_crashes")
    code = "import sys\nprint('libnvinfer is missing', file=sys.stderr)\nsys.exit(3)\n"
    (work_dir.parent / "this_test_crashes.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(work_dir.parent))
    with pytest.raises(EngineError, match=r"ended with code 3 .*libnvinfer is missing"):
        run(FakeTensorRT("10.3.0"), bundle, work_dir)


def test_what_libraries_print_does_not_disturb_the_answer(
    bundle: Bundle, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = work_dir.parent / "noisy"
    noisy.mkdir()
    (noisy / "tensorrt.py").write_text(
        "import os, sys\nos.write(1, b'{not json')\n"
        "from fake_tensorrt.fake import from_environment\n"
        "sys.modules[__name__] = from_environment().module\n"
    )
    with installed(FakeTensorRT("10.3.0"), monkeypatch) as fake:
        tests = str(Path(__file__).parent)
        monkeypatch.setenv("PYTHONPATH", f"{noisy}:{tests}")
        assert run(fake, bundle, work_dir).plan
    assert b"{not json" in (work_dir / "stderr").read_bytes()


def test_a_crash_after_the_last_word_does_not_spoil_the_build(
    bundle: Bundle, work_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries that crash while the interpreter goes down have nothing left to harm."""
    (tmp_path / "tensorrt.py").write_text(
        "import atexit, os, signal, sys\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGKILL)\n"
        "from fake_tensorrt.fake import from_environment\n"
        "sys.modules[__name__] = from_environment().module\n"
    )
    with installed(FakeTensorRT("10.3.0"), monkeypatch) as fake:
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent}")
        assert run(fake, bundle, work_dir).plan


def test_a_child_ends_with_its_parent(
    bundle: Bundle, work_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent's death closes the pipe; here the test closes it while the import hangs."""
    recipe, _ = make_recipe(bundle, tensorrt_version="10.3.0", precision="int8")
    order = BuildOrder(
        recipe=recipe,
        workspace_bytes=MIB,
        plan_path=str(work_dir / "plan"),
        timing_cache_path=str(work_dir / "timings"),
        num_onnx_bytes=3,
        num_timing_cache_bytes=0,
    )
    (tmp_path / "tensorrt.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path.cwd()}")
    child = subprocess.Popen(
        [sys.executable, "-m", "edge_runtime.engines.trt_build_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps(dataclass_to_dict(order)).encode() + b"\nabc")
    child.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.6)
    child.stdin.close()
    assert child.wait(5) == 1
    assert list(work_dir.iterdir()) == []


def test_the_working_directory_shadows_nothing(
    bundle: Bundle, work_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "here"
    trap.mkdir()
    (trap / "json.py").write_text("raise SystemExit('trapped')\n")
    monkeypatch.chdir(trap)
    with installed(FakeTensorRT("10.3.0"), monkeypatch) as fake:
        assert run(fake, bundle, work_dir).plan


@pytest.mark.parametrize(
    ("available", "limit"), [(16_000, 256), (1024, 256), (1000, 250), (64, 16)]
)
def test_the_workspace_is_a_quarter_of_the_free_memory_and_bounded(
    available: int, limit: int
) -> None:
    assert workspace_limit(available * MIB) == limit * MIB


def test_too_little_memory_is_refused_before_the_build() -> None:
    with pytest.raises(EngineError, match="only 63 MiB of memory are free"):
        workspace_limit(63 * MIB)


def death(**changes: Any) -> str:
    values = {
        "return_code": -9,
        "oom_kills": 0,
        "available_mib": 900,
        "peak_mib": 700,
        "last_words": "",
    }
    return explain_death(Death(**{**values, **changes}))


def test_deaths_are_told_apart() -> None:
    assert death(oom_kills=1).startswith("the builder was killed because memory ran out")
    assert "most likely by the kernel" in death(oom_kills=None)
    assert "SIGSEGV" in death(return_code=-signal.SIGSEGV, last_words="x")
    assert "signal 99" in death(return_code=-99)
    assert "nothing on stderr" in death(return_code=3)
    for code in (-9, -11, 3):
        assert "build" in death(return_code=code).split(": ", 1)[1]  # every one has a remedy


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("ERROR [defaultAllocator] CUDA error: out of memory", "memory ran out"),
        ("ERROR Requested amount of GPU memory (1) could not be allocated", "memory ran out"),
        ("ERROR 10: Could not find any implementation for node X", "no kernel fits"),
        ("INTERNAL_ERROR No importer registered for op: Foo", "cannot read the graph"),
        ("ERROR expecting library version 10 got 8", "does not belong to this TensorRT"),
        ("ERROR something new", "see the log"),
    ],
)
def test_a_builder_log_is_put_in_words(line: str, meaning: str) -> None:
    text = explain_log(["INFO out of memory is only mentioned here", line])
    assert text.startswith(meaning) or meaning in text.split(" (TensorRT:")[0]
    assert line in text


def test_an_empty_log_is_said() -> None:
    assert "the log is empty" in explain_log([])


def test_the_narrator_speaks_at_most_every_two_seconds() -> None:
    now, lines = [0.0], list[str]()
    narrator = Narrator(lines.append, clock=lambda: now[0])
    narrator.take({"event": "phase", "name": "Building", "parent": None, "num_steps": 100})
    narrator.take({"event": "phase", "name": "Tactics", "parent": "Building", "num_steps": 100})
    for step in range(100):
        now[0] += 0.1
        narrator.take({"event": "step", "name": "Tactics", "step": step})
    narrator.take({"event": "finish", "name": "Tactics"})
    assert lines[0] == "[    0 s] Building ..."
    assert lines[1] == "[    2 s] Tactics: step 20 of 100"
    assert len(lines) in (5, 6)


def test_memory_of_the_machine_is_read_from_the_kernel(tmp_path: Path) -> None:
    text = tmp_path / "file"
    text.write_text("MemTotal: 9 kB\nMemAvailable:   2048 kB\noom_kill 3\n")
    assert available_bytes(meminfo=text) == 2 * MIB
    assert num_oom_kills(vmstat=text) == 3
    assert num_oom_kills(vmstat=tmp_path / "missing") is None
    with pytest.raises(EngineError, match="does not say how much memory"):
        available_bytes(meminfo=tmp_path / "missing")
    assert available_bytes() > MIB


def test_a_workspace_limit_that_is_not_taken_is_said(bundle: Bundle) -> None:
    texts: list[str] = []
    recipe, _ = make_recipe(bundle, tensorrt_version="10.3.0", precision="int8")

    def report(event: dict[str, Any]) -> bool:
        texts.append(event.get("text", ""))
        return True

    with FakeTensorRT("10.3.0").installed() as fake:
        fake.fail("IBuilderConfig.set_memory_pool_limit", how="none")
        build_engine(
            fake.module, recipe, tiny_onnx(), workspace_bytes=MIB, timing_cache=b"", report=report
        )
    assert any(f"not the {MIB} asked for" in text for text in texts)


def renamed(old: str, new: str) -> bytes:
    """The tiny graph with another name for an input or output."""
    model = onnx.load_model_from_string(tiny_onnx())
    for one in (*model.graph.input, *model.graph.output):
        one.name = new if one.name == old else one.name
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = new if name == old else name
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        (renamed("image_nhwc", "image"), "inputs are"),
        (renamed("logits", "scores"), "the engine's tensors are"),
        (tiny_onnx(num_labels=3), "the engine's tensors are"),
        (tiny_onnx(size_px=64), "the profile of image_nhwc does not fit"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_graph_that_breaks_the_contract_gives_no_engine(
    version: str, graph: bytes, text: str, bundle: Bundle
) -> None:
    recipe, _ = make_recipe(bundle, tensorrt_version=version, precision="int8")
    with FakeTensorRT(version).installed() as fake, pytest.raises(EngineError) as caught:
        build_engine(
            fake.module,
            recipe,
            graph,
            workspace_bytes=MIB,
            timing_cache=b"",
            report=lambda _event: True,
        )
    assert text in str(caught.value)
