"""The TensorRT engine on four fake versions and two CUDA bindings: numbers, threads, failures."""

from __future__ import annotations

import ast
import gc
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from bundle_factory import LABELS, SIZE_PX, tiny_onnx
from fake_tensorrt.runtime import IExecutionContext
from trt_machine import VERSIONS, Machine, make_machine, until

from edge_runtime.engines.ort import OrtEngine
from edge_runtime.engines.trt import TrtEngine
from edge_runtime.engines.trt_options import TrtOptions
from edge_runtime.errors import ConfigError, CudaError, EngineBusyError, EngineError

BINDINGS = ("pycuda", "cuda-python")
KINDS = ("mapped", "copy")


def pictures(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random pictures (n, 1, S, S, 3)."""
    return rng.integers(0, 256, (n, 1, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)


def onnxruntime() -> OrtEngine:
    return OrtEngine(tiny_onnx(), precision="int8", size_px=SIZE_PX, num_labels=len(LABELS))


@pytest.fixture(autouse=True, scope="module")
def quick_collections() -> Iterator[None]:
    """Every test counts what is alive: keep the collector away from what was imported before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=[(v, b) for v in VERSIONS for b in BINDINGS], ids="-".join)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    version, binding = request.param
    return make_machine(monkeypatch, version=version, binding=binding)


@pytest.fixture
def jetson(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return make_machine(monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_onnxruntime(
    machine: Machine, kind: str, rng: np.random.Generator
) -> None:
    engine, reference = machine.engine(memory=kind), onnxruntime()
    for image in pictures(rng, 4):
        there, here = reference.run(image), engine.run(image)
        np.testing.assert_array_equal(here.logits, there.logits)
        np.testing.assert_array_equal(here.embedding, there.embedding)
        np.testing.assert_array_equal(here.evidence, there.evidence)
        assert here.gradability_logit == there.gradability_logit
    assert (engine.name, engine.precision) == ("tensorrt", "int8")
    engine.close()
    machine.assert_clean()


def test_the_facts_name_everything(machine: Machine) -> None:
    engine = machine.engine()
    details = engine.facts.details
    assert details["tensorrt"] == machine.tensorrt.version
    assert details["gpu"] == "Orin, compute capability 8.7"
    assert details["cuda_binding"].startswith(machine.binding)
    assert details["memory"] == "mapped (the GPU is integrated and can map host memory)"
    if machine.binding == "pycuda":
        assert "has no CUDA graphs" in details["cuda_graph"]
        assert "has no CUDA graphs" in engine.facts.warnings[0]
    else:
        assert details["cuda_graph"] == "captured"
        assert engine.facts.warnings == ()
    engine.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_allocates_nothing_but_the_answer(
    machine: Machine, kind: str, rng: np.random.Generator
) -> None:
    engine, images = machine.engine(memory=kind, run_timeout_s=60.0), pictures(rng, 8)
    answer_bytes = sum(
        v.nbytes for v in vars(engine.run(images[0])).values() if hasattr(v, "nbytes")
    )
    blocks, objects = machine.gpu.num_allocations(), dict(machine.tensorrt.alive)
    machine.tensorrt.compute = cached_compute(images)
    for image in images:
        engine.run(image)
    tracemalloc.start()
    kept = [engine.run(image) for image in images]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert machine.gpu.num_allocations() == blocks
    assert {k: n for k, n in machine.tensorrt.alive.items() if n} == {
        k: n for k, n in objects.items() if n
    }
    # The fake reads the input and writes the outputs as bytes, which a GPU does not.
    fakes_own = images[0].nbytes + 2 * answer_bytes
    assert peak < len(kept) * (answer_bytes + 1024) + fakes_own + 16_384
    engine.close()


def cached_compute(images: np.ndarray) -> object:
    """A pretended kernel that allocates nothing worth counting."""
    session = onnxruntime()._session
    names = ["logits", "gradability_logit", "embedding", "evidence"]
    answer = session.run(names, {"image_nhwc": images[0]})

    def compute(_session: object, asked: list[str], _inputs: object) -> list[np.ndarray]:
        return [answer[names.index(name)] for name in asked]

    return compute


def test_the_graph_is_replayed_and_the_kernels_are_not_enqueued_again(jetson: Machine) -> None:
    engine = jetson.engine(warmup_runs=1)
    before = jetson.tensorrt.calls["IExecutionContext.execute_async_v3"]
    assert before == 2  # one plain run, one recording
    image = np.zeros((1, SIZE_PX, SIZE_PX, 3), np.uint8)
    engine.run(image)
    assert jetson.tensorrt.calls["IExecutionContext.execute_async_v3"] == before
    assert jetson.gpu.calls.count("cudaGraphLaunch") == 2
    engine.close()


def test_without_a_graph_by_choice_there_is_no_warning(machine: Machine) -> None:
    engine = machine.engine(cuda_graph=False)
    assert engine.facts.warnings == ()
    assert engine.facts.details["cuda_graph"] == "no: switched off"
    assert machine.gpu.graphs == {}
    engine.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_capture_that_fails_falls_back_aloud(
    monkeypatch: pytest.MonkeyPatch, kind: str, rng: np.random.Generator
) -> None:
    machine = make_machine(monkeypatch, graphs_fail=True)
    engine, image = machine.engine(memory=kind), pictures(rng, 1)[0]
    assert "without a CUDA graph" in engine.facts.warnings[0]
    assert "cudaStreamBeginCapture" in engine.facts.details["cuda_graph"]
    np.testing.assert_array_equal(engine.run(image).logits, onnxruntime().run(image).logits)
    engine.close()
    machine.assert_clean()


def test_an_enqueue_that_fails_while_recording_falls_back_aloud(
    jetson: Machine, rng: np.random.Generator
) -> None:
    jetson.tensorrt.fail("IExecutionContext.execute_async_v3", call=2, how="false")
    engine, image = jetson.engine(), pictures(rng, 1)[0]
    assert "execute_async_v3 returned False" in engine.facts.warnings[0]
    np.testing.assert_array_equal(engine.run(image).logits, onnxruntime().run(image).logits)
    engine.close()
    jetson.assert_clean()


def test_a_graph_that_answers_otherwise_is_not_used(jetson: Machine) -> None:
    replays = iter(range(100))

    def drifting(session: object, names: list[str], inputs: dict[str, object]) -> list[np.ndarray]:
        answer = session.run(names, inputs)  # type: ignore[attr-defined]
        return answer if next(replays) != 1 else [value + 1 for value in answer]

    jetson.tensorrt.compute = drifting
    engine = jetson.engine()
    assert "answered otherwise" in engine.facts.warnings[0]
    engine.close()
    jetson.assert_clean()


def test_calls_from_many_threads_are_answered_rightly_on_one_thread(
    machine: Machine, rng: np.random.Generator
) -> None:
    engine, images, reference = machine.engine(max_waiting=64), pictures(rng, 40), onnxruntime()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda image: engine.run(image).logits, images))
    np.testing.assert_array_equal(together, [reference.run(image).logits for image in images])
    engine.close()
    assert len(machine.gpu.threads) == 1
    assert threading.get_ident() not in machine.gpu.threads
    machine.assert_clean()


def test_an_earlier_answer_is_not_overwritten(machine: Machine, rng: np.random.Generator) -> None:
    engine, images = machine.engine(), pictures(rng, 2)
    first = engine.run(images[0])
    kept = first.logits.copy(), first.evidence.copy()
    engine.run(images[1])
    np.testing.assert_array_equal(first.logits, kept[0])
    np.testing.assert_array_equal(first.evidence, kept[1])
    engine.close()


def slow_machine(machine: Machine, gate: threading.Event) -> None:
    """Let every kernel wait for the gate from now on."""

    def compute(session: object, names: list[str], inputs: dict[str, object]) -> object:
        gate.wait(10.0)
        return session.run(names, inputs)  # type: ignore[attr-defined]

    machine.tensorrt.compute = compute  # type: ignore[assignment]


def test_a_hanging_device_hangs_no_caller(jetson: Machine, rng: np.random.Generator) -> None:
    engine, image, gate = jetson.engine(run_timeout_s=0.1), pictures(rng, 1)[0], threading.Event()
    slow_machine(jetson, gate)
    started = time.monotonic()
    with pytest.raises(EngineBusyError, match=r"within 0\.1 s"):
        engine.run(image)
    with pytest.raises(EngineBusyError):  # waits in the queue until its time is over
        engine.run(image)
    assert time.monotonic() - started < 2.0
    gate.set()
    until(lambda: answers(engine, image))  # the device came back, and so does the engine
    engine.close()
    jetson.assert_clean()


def answers(engine: TrtEngine, image: np.ndarray) -> bool:
    """Whether the engine answers in its time."""
    try:
        engine.run(image)
    except EngineBusyError:
        return False
    return True


def test_a_caller_in_a_hurry_waits_no_longer(jetson: Machine, rng: np.random.Generator) -> None:
    engine, image, gate = jetson.engine(), pictures(rng, 1)[0], threading.Event()
    slow_machine(jetson, gate)
    started = time.monotonic()
    with pytest.raises(EngineBusyError, match=r"within 0\.05 s"):
        engine.run(image, timeout_s=0.05)
    with pytest.raises(EngineBusyError, match="within 0 s"):
        engine.run(image, timeout_s=-1.0)
    assert time.monotonic() - started < 2.0
    gate.set()
    engine.close()
    jetson.assert_clean()


def test_a_call_whose_time_is_over_is_not_run(jetson: Machine, rng: np.random.Generator) -> None:
    engine, image, gate = jetson.engine(run_timeout_s=0.1), pictures(rng, 1)[0], threading.Event()
    slow_machine(jetson, gate)
    before = jetson.gpu.calls.count("cudaGraphLaunch")
    for _ in range(3):
        with pytest.raises(EngineBusyError):
            engine.run(image)
    gate.set()
    engine.close()
    assert jetson.gpu.calls.count("cudaGraphLaunch") == before + 1


def test_a_full_queue_refuses_at_once(jetson: Machine, rng: np.random.Generator) -> None:
    engine, gate = jetson.engine(max_waiting=1, run_timeout_s=30.0), threading.Event()
    assert engine.max_callers == 2  # one that runs, one that waits
    image = pictures(rng, 1)[0]
    slow_machine(jetson, gate)
    with ThreadPoolExecutor(2) as pool:
        launches = jetson.gpu.calls.count("cudaGraphLaunch")
        waiting = [pool.submit(engine.run, image)]
        until(lambda: jetson.gpu.calls.count("cudaGraphLaunch") > launches)
        waiting.append(pool.submit(engine.run, image))
        until(lambda: engine._thread._queue.qsize() == 1)
        with pytest.raises(EngineBusyError, match="1 calls wait"):
            engine.run(image)
        gate.set()
        assert len({job.result().logits.tobytes() for job in waiting}) == 1
    engine.close()


def test_a_device_that_hangs_while_closing_is_given_up(jetson: Machine) -> None:
    engine, gate = jetson.engine(run_timeout_s=0.05), threading.Event()
    engine._close.detach()
    slow_machine(jetson, gate)
    with pytest.raises(EngineBusyError):
        engine.run(np.zeros((1, SIZE_PX, SIZE_PX, 3), np.uint8))
    with pytest.raises(EngineError, match=r"did not answer within 0\.05 s while"):
        engine._thread.stop(engine._session.close, timeout_s=0.05)
    gate.set()
    engine._thread._thread.join(5.0)
    jetson.assert_clean()


def test_a_closed_engine_refuses_and_closes_twice(machine: Machine) -> None:
    engine = machine.engine()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(np.zeros((1, SIZE_PX, SIZE_PX, 3), np.uint8))
    machine.assert_clean()


def test_a_forgotten_engine_is_closed_on_its_own_thread(machine: Machine) -> None:
    engine = machine.engine()
    del engine
    gc.collect()
    machine.assert_clean()
    assert len(machine.gpu.threads) == 1


def test_a_program_that_forgets_to_close_ends_cleanly(tmp_path: Path) -> None:
    """The net at the end of a process: everything released, on its own thread, before exit."""
    script = tmp_path / "forgetful.py"
    script.write_text(
        "import atexit\n"
        "import pytest\n"
        "from trt_machine import make_machine\n"
        "machine = make_machine(pytest.MonkeyPatch(), binding='pycuda')\n"
        "atexit.register(lambda: print(machine.gpu.left_over(), machine.gpu.violations))\n"
        "engine = machine.engine()\n"
        "print(machine.gpu.left_over() != [])\n"
    )
    tests = Path(__file__).resolve().parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:2] == ["True", "[] []"]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, SIZE_PX, SIZE_PX, 3), np.float32),
        np.zeros((2, SIZE_PX, SIZE_PX, 3), np.uint8),
    ],
)
def test_a_wrong_picture_is_an_error_of_the_caller(jetson: Machine, image: np.ndarray) -> None:
    engine = jetson.engine()
    with pytest.raises(ValueError, match="not uint8"):
        engine.run(image)
    engine.run(np.zeros((1, SIZE_PX, SIZE_PX, 3), np.uint8))
    engine.close()


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_output_that_is_not_written_is_never_the_last_patients(
    jetson: Machine, kind: str, cuda_graph: bool
) -> None:
    """The kernel of the second run writes nothing: the first answer must not come back."""
    engine = jetson.engine(memory=kind, cuda_graph=cuda_graph)
    image = np.full((1, SIZE_PX, SIZE_PX, 3), 90, np.uint8)
    engine.run(image)
    jetson.gpu.write = lambda _address, _data: None  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="not finite"):
        engine.run(image)
    engine.close()


def test_output_that_is_not_finite_leaves_the_engine_usable(jetson: Machine) -> None:
    engine, image = jetson.engine(), np.zeros((1, SIZE_PX, SIZE_PX, 3), np.uint8)
    jetson.tensorrt.compute = lambda session, names, inputs: [
        value * np.float32(np.nan) for value in session.run(names, inputs)
    ]
    with pytest.raises(EngineError, match="not finite"):
        engine.run(image)
    jetson.tensorrt.compute = None
    engine.run(image)
    engine.close()


def test_after_a_failure_nothing_is_answered_and_closing_works(machine: Machine) -> None:
    engine, image = machine.engine(), np.zeros((1, SIZE_PX, SIZE_PX, 3), np.uint8)
    engine.run(image)
    machine.gpu.fail_at = {len(machine.gpu.calls): "cudaErrorLaunchFailure"}
    with pytest.raises(CudaError, match="unspecified launch failure"):
        engine.run(image)
    with pytest.raises(EngineError, match=r"failed earlier .*open it again"):
        engine.run(image)
    engine.close()
    machine.assert_clean()


def test_a_call_that_waits_while_another_fails_is_not_answered(
    jetson: Machine, rng: np.random.Generator
) -> None:
    """TensorRT refuses one run and would do the next: the context is not trusted with it."""
    engine, gate = jetson.engine(cuda_graph=False, run_timeout_s=30.0), threading.Event()
    images = pictures(rng, 3)
    slow_machine(jetson, gate)
    path = "IExecutionContext.execute_async_v3"
    with ThreadPoolExecutor(3) as pool:
        started = jetson.tensorrt.calls[path]
        waiting = [pool.submit(engine.run, images[0])]
        until(lambda: jetson.tensorrt.calls[path] > started)
        jetson.tensorrt.fail(path, call=started + 2, how="false")
        for number in (1, 2):
            waiting.append(pool.submit(engine.run, images[number]))
            until(lambda n=number: engine._thread._queue.qsize() == n)
        gate.set()
        assert waiting[0].result().logits.size == len(LABELS)
        with pytest.raises(EngineError, match=r"^TensorRT: execute_async_v3 returned False"):
            waiting[1].result()
        with pytest.raises(EngineError, match=r"^the engine failed earlier \(TensorRT: execute_"):
            waiting[2].result()
    engine.close()
    jetson.assert_clean()


def test_a_plan_of_another_version_is_refused_with_tensorrts_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = make_machine(monkeypatch, version="8.6.1").plan()
    machine = make_machine(monkeypatch, version="10.3.0")
    with pytest.raises(EngineError, match=r"returned None.*8\.6\.1.*build it again: edge-screen"):
        machine.engine(plan=old)
    machine.assert_clean()


@pytest.mark.parametrize("change", ["size", "labels"])
def test_a_plan_of_another_model_is_refused(jetson: Machine, change: str) -> None:
    other = tiny_onnx(size_px=64) if change == "size" else tiny_onnx(num_labels=3)
    with pytest.raises(EngineError, match=r"engine takes other|graph's outputs"):
        jetson.engine(plan=jetson.plan(other))
    jetson.assert_clean()


def float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def half_output(model: onnx.ModelProto) -> None:
    model.graph.node[-2].output[0] = "embedding_full"
    model.graph.node[-1].input[0] = "embedding_full"
    model.graph.node.append(
        onnx.helper.make_node(
            "Cast", ["embedding_full"], ["embedding"], to=onnx.TensorProto.FLOAT16
        )
    )
    model.graph.output[2].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("change", "message"),
    [(float_input, "has no uint8 input image_nhwc"), (half_output, "is not float32")],
)
def test_a_plan_of_other_types_is_refused(
    jetson: Machine, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    model = onnx.load_model_from_string(tiny_onnx())
    change(model)
    with pytest.raises(EngineError, match=f"{message}; build it again"):
        jetson.engine(plan=jetson.plan(model.SerializeToString()))
    jetson.assert_clean()


def test_a_shape_that_tensorrt_still_misses_is_refused(
    jetson: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IExecutionContext, "infer_shapes", lambda _self: ["image_nhwc"])
    with pytest.raises(EngineError, match=r"lacks the shapes of \['image_nhwc'\]; build it again"):
        jetson.engine()
    jetson.assert_clean()


def test_a_missing_tensorrt_is_said(jetson: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = jetson.plan()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match="system-site-packages"):
        jetson.engine(plan=plan)
    assert jetson.gpu.calls == []


def test_keep_warm_runs_between_pictures_and_never_on_a_patient(jetson: Machine) -> None:
    seen: list[int] = []

    def watching(session: object, names: list[str], inputs: dict[str, np.ndarray]) -> object:
        seen.append(int(inputs["image_nhwc"].max()))
        return session.run(names, inputs)  # type: ignore[attr-defined]

    engine = jetson.engine(keep_warm_s=0.02)
    jetson.tensorrt.compute = watching  # type: ignore[assignment]
    image = np.full((1, SIZE_PX, SIZE_PX, 3), 200, np.uint8)
    answer = engine.run(image).logits
    until(lambda: seen.count(128) >= 3)
    np.testing.assert_array_equal(engine.run(image).logits, answer)
    engine.close()
    assert seen.count(200) == 2
    assert set(seen) == {128, 200}


def test_a_failure_while_keeping_warm_is_not_forgotten(jetson: Machine) -> None:
    engine = jetson.engine(keep_warm_s=0.02)
    jetson.gpu.sticky = None
    later = range(len(jetson.gpu.calls) + 1, len(jetson.gpu.calls) + 9)
    jetson.gpu.fail_at = dict.fromkeys(later, "cudaErrorLaunchFailure")
    until(lambda: engine._thread.failure)
    jetson.gpu.fail_at = {}
    with pytest.raises(EngineError, match=r"failed earlier .*launch failure"):
        engine.run(np.zeros((1, SIZE_PX, SIZE_PX, 3), np.uint8))
    engine.close()
    jetson.assert_clean()


@pytest.mark.parametrize(
    "changes",
    [
        {"binding": "cupy"},
        {"memory": "managed"},
        {"wait": "poll"},
        {"warmup_runs": 0},
        {"max_waiting": 0},
        {"keep_warm_s": 0.0},
        {"run_timeout_s": float("nan")},
        {"open_timeout_s": -1.0},
    ],
)
def test_options_out_of_range_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"; (use|give)"):
        TrtOptions(**changes)  # type: ignore[arg-type]


RUNNING = (
    "trt.py", "trt_session.py", "owner_thread.py", "io_contract.py",
    "cuda_memory.py", "cuda_pycuda.py", "cuda_runtime.py",
)  # fmt: skip


@pytest.mark.parametrize("name", RUNNING)
def test_no_version_is_compared_while_running(name: str) -> None:
    """What runs an engine reads TensorRT's version once, to name it, and knows no table of them."""
    folder = Path(__file__).resolve().parent.parent / "edge_runtime" / "engines"
    tree = ast.parse((folder / name).read_text(encoding="utf-8"))
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        read = [
            node
            for node in ast.walk(function)
            if isinstance(node, ast.Attribute) and node.attr == "__version__"
        ]
        assert len(read) == (1 if (name, function.name) == ("trt_session.py", "_describe") else 0)
    modules = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {one for one in modules if one.endswith(("trt_table", "trt_recipe"))}
