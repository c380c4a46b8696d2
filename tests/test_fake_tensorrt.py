"""The fake tensorrt itself: it has the names of its version, fails without raising, computes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from bundle_factory import SIZE_PX, run_onnx, tiny_onnx
from fake_tensorrt.census import present_in, versions
from fake_tensorrt.fake import VERSIONS, FakeTensorRT
from fake_tensorrt.memory import MemoryFault, PlainMemory

SHAPE = (1, SIZE_PX, SIZE_PX, 3)


@pytest.fixture(params=VERSIONS)
def fake(request: pytest.FixtureRequest) -> Iterator[FakeTensorRT]:
    """The fake of every version, installed as `tensorrt`."""
    with FakeTensorRT(request.param).installed() as made:
        yield made


def network_flags(trt: Any) -> int:
    """Flags of a weakly typed network with an explicit batch, by name."""
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0


def build(trt: Any, graph: bytes, logger: Any = None, **settings: Any) -> Any:
    """The plan of a graph, or None, with a profile when `shapes` is given."""
    builder = trt.Builder(logger or trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, trt.Logger())
    assert parser.parse(graph), parser.get_error(0).desc()
    config = builder.create_builder_config()
    if "shapes" in settings:
        profile = builder.create_optimization_profile()
        profile.set_shape("image_nhwc", *settings["shapes"])
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    return None if plan is None else bytes(plan)


def dynamic_onnx() -> bytes:
    """The tiny graph with a free batch."""
    model = onnx.load_model_from_string(tiny_onnx())
    for one in (*model.graph.input, *model.graph.output):
        one.type.tensor_type.shape.dim[0].dim_param = "n"
    return bytes(model.SerializeToString())


def bound(trt: Any, memory: PlainMemory, plan: bytes) -> tuple[Any, dict[str, int]]:
    """A context on the plan with an allocation for every tensor."""
    engine = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR)).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    addresses = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        num_bytes = trt.volume(engine.get_tensor_shape(name)) * 4
        addresses[name] = memory.alloc(num_bytes)
        assert context.set_tensor_address(name, addresses[name])
    return context, addresses


def test_a_name_is_there_exactly_in_the_versions_of_the_census(fake: FakeTensorRT) -> None:
    trt = fake.module
    for path in (
        "Builder.build_engine",
        "BuilderFlag.INT8",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "IProgressMonitor",
        "ICudaEngine.device_memory_size",
        "IBuilderConfig.progress_monitor",
        "int64",
    ):
        head, _, member = path.partition(".")
        expected = fake.version in present_in(path)
        there = hasattr(trt, head) and (not member or hasattr(getattr(trt, head), member))
        assert there == expected, path


def test_removed_names_fail_on_objects_and_on_assignment(fake: FakeTensorRT) -> None:
    config = fake.module.Builder(fake.module.Logger()).create_builder_config()
    with pytest.raises(AttributeError):
        config.no_such_setting = 1
    with pytest.raises(AttributeError):
        _ = config.no_such_setting
    has_monitor = fake.version in present_in("IBuilderConfig.progress_monitor")
    assert hasattr(config, "progress_monitor") == has_monitor
    if not has_monitor:
        with pytest.raises(AttributeError):
            config.progress_monitor = None


def test_enum_integers_that_are_documented_to_move_do_move() -> None:
    def bit(version: str, path: str) -> int:
        cls, _, name = path.partition(".")
        return int(getattr(getattr(FakeTensorRT(version).module, cls), name))

    typed = "NetworkDefinitionCreationFlag.STRONGLY_TYPED"
    assert [bit(one, typed) for one in ("10.3.0", "11.4.0.106")] == [1, 0]
    assert [bit(one, "BuilderFlag.VERSION_COMPATIBLE") for one in VERSIONS] == [13, 13, 13, 12]
    assert len({bit(one, "BuilderFlag.TF32") for one in VERSIONS}) > 1


def test_the_engine_computes_what_the_graph_computes(
    fake: FakeTensorRT, rng: np.random.Generator
) -> None:
    memory = fake.memory
    assert isinstance(memory, PlainMemory)
    context, addresses = bound(fake.module, memory, build(fake.module, tiny_onnx()))
    image = rng.integers(0, 256, SHAPE, dtype=np.uint8)
    memory.write(addresses["image_nhwc"], image.tobytes())
    assert context.execute_async_v3(7) is True
    assert memory.launches == [7]
    logits = np.frombuffer(memory.read(addresses["logits"], 8), np.float32)
    np.testing.assert_array_equal(logits, run_onnx(tiny_onnx(), image)[0][0])


def test_refusals_are_none_and_false_and_never_exceptions(fake: FakeTensorRT) -> None:
    trt, memory = fake.module, fake.memory
    assert isinstance(memory, PlainMemory)
    plan = build(trt, tiny_onnx())
    runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
    for damaged in (b"", plan[:-1], plan + b"\0", plan[:-9] + b"x" + plan[-8:]):
        assert runtime.deserialize_cuda_engine(damaged) is None
    context, addresses = bound(trt, memory, plan)
    assert context.set_input_shape("image_nhwc", (2, *SHAPE[1:])) is False
    assert context.set_tensor_address("nothing", 1) is False
    for wrong in (None, np.zeros(1)):
        with pytest.raises(TypeError):
            context.set_tensor_address("logits", wrong)
    with pytest.raises(TypeError):
        context.execute_async_v3(None)
    memory.free(addresses["logits"])  # the address is kept, the memory is gone
    assert context.execute_async_v3(0) is False
    assert context.set_tensor_address("logits", np.int64(0)) is True
    assert context.execute_async_v3(0) is False


def test_a_missing_address_makes_execution_fail(fake: FakeTensorRT) -> None:
    trt = fake.module
    runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
    engine = runtime.deserialize_cuda_engine(build(trt, tiny_onnx()))
    assert engine.create_execution_context().execute_async_v3(0) is False


def test_profile_limits_hold(fake: FakeTensorRT) -> None:
    trt = fake.module
    silent = trt.Logger(trt.Logger.INTERNAL_ERROR)
    assert build(trt, dynamic_onnx(), silent) is None  # no profile
    shapes = [(n, *SHAPE[1:]) for n in (1, 1, 4)]
    plan = build(trt, dynamic_onnx(), shapes=shapes)
    engine = trt.Runtime(silent).deserialize_cuda_engine(plan)
    rows = [tuple(row) for row in engine.get_tensor_profile_shape("image_nhwc", 0)]
    assert rows == shapes
    context = engine.create_execution_context()
    assert context.infer_shapes() == ["image_nhwc"]
    found = [context.set_input_shape("image_nhwc", (n, *SHAPE[1:])) for n in (0, 1, 4, 5)]
    assert found == [False, True, True, False]


def test_a_parser_collects_its_errors(fake: FakeTensorRT) -> None:
    trt = fake.module
    model = onnx.load_model_from_string(tiny_onnx())
    model.graph.node[4].op_type = "ConvInteger"
    network = trt.Builder(trt.Logger()).create_network(network_flags(trt))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.INTERNAL_ERROR))
    assert parser.parse(model.SerializeToString()) is False
    assert "ConvInteger" in parser.get_error(0).desc()
    assert parser.parse(b"nonsense") is False
    assert parser.num_errors > 0
    assert network.num_outputs == 0


def test_an_old_version_without_explicit_batch_parses_nothing() -> None:
    trt = FakeTensorRT("8.6.1").module
    network = trt.Builder(trt.Logger()).create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.INTERNAL_ERROR))
    assert parser.parse(tiny_onnx()) is False


def test_precision_flags_in_a_strongly_typed_network_give_no_plan() -> None:
    trt = FakeTensorRT("10.16.1.11").module
    builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag))
    assert trt.OnnxParser(network, trt.Logger()).parse(tiny_onnx())
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.FP16)
    assert builder.build_serialized_network(network, config) is None


def test_any_call_can_fail_as_asked(fake: FakeTensorRT) -> None:
    trt = fake.module
    fake.fail("Builder.create_network", call=2, how="none")
    fake.fail("Builder.create_builder_config")
    fake.fail("Runtime", how="raise")
    builder = trt.Builder(trt.Logger())
    assert builder.create_network(network_flags(trt)) is not None
    assert builder.create_network(network_flags(trt)) is None
    with pytest.raises(RuntimeError, match="injected"):
        builder.create_builder_config()
    with pytest.raises(RuntimeError, match="injected"):
        trt.Runtime(trt.Logger())
    with pytest.raises(ValueError, match="has no"):
        fake.fail("Builder.nothing")


def test_what_is_alive_is_counted(fake: FakeTensorRT) -> None:
    trt = fake.module
    engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(build(trt, tiny_onnx()))
    context = engine.create_execution_context()
    assert fake.live("Builder", "INetworkDefinition", "OnnxParser", "IBuilderConfig") == 0
    del engine
    assert (fake.live("ICudaEngine"), fake.live("IExecutionContext")) == (1, 1)  # kept alive
    del context
    assert fake.live() == 0


def test_subclasses_are_ordinary_and_must_initialise_their_base() -> None:
    trt = FakeTensorRT("10.3.0").module

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.own = 1

    class Careless(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            pass

    assert Monitor().own == 1
    with pytest.raises(TypeError, match="must be called"):
        Careless()


def test_a_child_process_imports_the_same_fake(fake: FakeTensorRT) -> None:
    fake.fail("Builder", how="raise")
    code = (
        "import json, tensorrt as t\n"
        "try: t.Builder(t.Logger())\n"
        "except RuntimeError as e: print(json.dumps([t.__version__, str(e)]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **fake.environment()},
        capture_output=True,
        check=True,
        text=True,
    )
    assert json.loads(done.stdout) == [fake.version, "injected: Builder, call 1"]


def test_the_plain_memory_finds_overruns_and_double_frees() -> None:
    memory = PlainMemory()
    address = memory.alloc(16)
    memory.write(address + 8, b"12345678")
    assert memory.read(address + 8, 8) == b"12345678"
    for fault in (lambda: memory.read(address + 9, 8), lambda: memory.free(address + 1)):
        with pytest.raises(MemoryFault):
            fault()
    memory.free(address)
    assert memory.live_bytes == 0


def test_the_census_knows_the_versions_of_the_fakes() -> None:
    assert set(VERSIONS) < set(versions())
    assert present_in("Builder.build_engine") == ("8.6.1",)
    assert present_in("no_such_name") == ()
