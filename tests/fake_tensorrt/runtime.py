"""Runtime, engine, execution context and inspector: they compute, and they fail without raising."""

from __future__ import annotations

import json
import operator
from typing import Any

import numpy as np
from fake_tensorrt import graph
from fake_tensorrt.graph import TensorFacts, numpy_type
from fake_tensorrt.memory import MemoryFault
from fake_tensorrt.plan import FakePlan
from fake_tensorrt.sealing import Binding


class Runtime(Binding):
    """Reads plans; a plan that does not fit is None and a line in the log."""

    _constructible = True

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        plan = FakePlan.from_bytes(bytes(serialized_engine))
        objection = self._objection(plan)
        if plan is None or objection is not None:
            self._fake.log(self._logger, "ERROR", f"deserializeCudaEngine: {objection}")
            return None
        return self._fake.new("ICudaEngine", self, plan)

    def _objection(self, plan: FakePlan | None) -> str | None:
        if plan is None:
            return "Serialization assertion stdArchiveReader: magic tag or checksum does not match"
        if plan.version != self._fake.version:
            return f"expecting library version {self._fake.version} got {plan.version}"
        if plan.compute_capability != self._fake.compute_capability:
            return "the engine plan was built for another compute capability"
        return None


class ICudaEngine(Binding):
    """An engine whose answer is that of its ONNX graph in ONNX Runtime."""

    def __init__(self, runtime: Any, plan: FakePlan) -> None:
        super().__init__()
        self._runtime, self._plan = runtime, plan
        self._session = graph.session(plan.onnx)
        self._facts = {one.name: one for one in graph.tensor_facts(self._session)}

    @property
    def name(self) -> str:
        return "fake"

    @property
    def num_io_tensors(self) -> int:
        return len(self._facts)

    @property
    def num_layers(self) -> int:
        return len(graph.layer_names(self._plan.onnx))

    @property
    def num_optimization_profiles(self) -> int:
        return max(1, len(self._plan.profiles))

    @property
    def device_memory_size(self) -> int:
        return 1 << 20

    @property
    def device_memory_size_v2(self) -> int:
        return 1 << 20

    @property
    def profiling_verbosity(self) -> Any:
        return self._fake.enum("ProfilingVerbosity")[self._plan.verbosity]

    @property
    def hardware_compatibility_level(self) -> Any:
        return self._fake.enum("HardwareCompatibilityLevel")["NONE"]

    def get_tensor_name(self, index: int) -> str:
        return list(self._facts)[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._fake.enum("TensorIOMode")
        if name not in self._facts:
            return modes["NONE"]
        return modes["INPUT" if self._facts[name].is_input else "OUTPUT"]

    def get_tensor_shape(self, name: str) -> Any:
        return self._fake.new("Dims", self._fact(name).shape)

    def get_tensor_dtype(self, name: str) -> Any:
        return self._fake.enum("DataType")[self._fact(name).type_name]

    def get_tensor_location(self, name: str) -> Any:
        del name
        return self._fake.enum("TensorLocation")["DEVICE"]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        rows = self._limits(name, profile_index) or [self._fact(name).shape] * 3
        return [self._fake.new("Dims", row) for row in rows]

    def create_execution_context(self, *strategy: Any) -> Any:
        del strategy
        return self._fake.new("IExecutionContext", self)

    def create_engine_inspector(self) -> Any:
        return self._fake.new("EngineInspector", self)

    def serialize(self) -> Any:
        return self._fake.new("IHostMemory", self._plan.to_bytes())

    def _fact(self, name: str) -> TensorFacts:
        """Facts of a tensor; an unknown name is a line in the log and an empty tensor."""
        if name not in self._facts:
            self._fake.log(self._runtime._logger, "ERROR", f"no input or output tensor {name}")
            return TensorFacts(name=name, shape=(), type_name="FLOAT", is_input=False)
        return self._facts[name]

    def _limits(self, name: str, profile_index: int) -> list[tuple[int, ...]] | None:
        """(min, opt, max) of an input in a profile, None where the profile has no word on it."""
        profiles = self._plan.profiles
        if profile_index >= len(profiles) or name not in profiles[profile_index]:
            return None
        return [tuple(row) for row in profiles[profile_index][name]]


class IExecutionContext(Binding):
    """Addresses are integers; no buffer is kept alive; every refusal is False."""

    def __init__(self, engine: Any) -> None:
        super().__init__()
        self.engine = engine
        self._addresses: dict[str, int] = {}
        facts = engine._facts.values()
        self._shapes = {one.name: one.shape for one in facts if one.is_input}
        self._profile_index = 0
        self.profiler = None
        self.enqueue_emits_profile = True

    @property
    def active_optimization_profile(self) -> int:
        return self._profile_index

    @property
    def all_binding_shapes_specified(self) -> bool:
        return all(-1 not in shape for shape in self._shapes.values())

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        operator.index(stream_handle)
        if not 0 <= profile_index < max(1, len(self.engine._plan.profiles)):
            return self._no(f"there is no profile {profile_index}")
        self._profile_index = profile_index
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        given = tuple(int(one) for one in shape)
        if name not in self._shapes:
            return self._no(f"{name} is no input")
        declared = self.engine._facts[name].shape
        limits = self.engine._limits(name, self._profile_index)
        if not _allowed(given, declared, limits):
            return self._no(f"{given} does not satisfy the optimization profile of {name}")
        self._shapes[name] = given
        return True

    def get_tensor_shape(self, name: str) -> Any:
        shape = self._shapes.get(name, self.engine._fact(name).shape)
        return self._fake.new("Dims", shape)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        address = operator.index(memory)  # TypeError for an array or None, as in the binding
        if name not in self.engine._facts:
            return self._no(f"{name} is no input or output tensor")
        self._addresses[name] = address
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def infer_shapes(self) -> list[str]:
        return [name for name, shape in self._shapes.items() if -1 in shape]

    def report_to_profiler(self) -> bool:
        if self.profiler is None:
            return self._no("no profiler is set")
        self._report()
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        stream = operator.index(stream_handle)
        missing = [name for name in self.engine._facts if not self._addresses.get(name)]
        if missing:
            return self._no(f"no address is set for {', '.join(missing)}")
        if self.infer_shapes():
            return self._no("not all shapes of inputs are specified")
        addresses, shapes = dict(self._addresses), dict(self._shapes)
        memory, engine = self._fake.memory, self.engine
        try:
            memory.launch(stream, lambda: _compute(engine, memory, addresses, shapes))
        except MemoryFault as error:
            return self._no(f"Cuda Runtime (an illegal memory access was encountered): {error}")
        if self.profiler is not None and self.enqueue_emits_profile:
            self._report()
        return True

    def execute_v2(self, bindings: list[int]) -> bool:
        for name, address in zip(self.engine._facts, bindings, strict=True):
            self._addresses[name] = operator.index(address)
        return self.execute_async_v3(0)

    def _report(self) -> None:
        for layer in graph.layer_names(self.engine._plan.onnx):
            self.profiler.report_layer_time(layer, 0.01)

    def _no(self, reason: str) -> bool:
        self._fake.log(self.engine._runtime._logger, "ERROR", reason)
        return False


class EngineInspector(Binding):
    """What the layers are; with detail only when the engine was built with it."""

    def __init__(self, engine: Any) -> None:
        super().__init__()
        self._engine = engine

    def get_engine_information(self, format: Any) -> str:  # the binding's name
        names = graph.layer_names(self._engine._plan.onnx)
        if format.name == "JSON":
            return json.dumps({"Layers": names, "Bindings": list(self._engine._facts)})
        return "\n".join(names)


def _allowed(
    given: tuple[int, ...], declared: tuple[int, ...], limits: list[tuple[int, ...]] | None
) -> bool:
    """Whether a shape fits the network's declaration and lies in the profile's limits."""
    if len(given) != len(declared):
        return False
    if any(d not in (-1, g) for d, g in zip(declared, given, strict=True)):
        return False
    if limits is None:
        return -1 not in declared
    low, _, high = limits
    return all(a <= g <= b for a, g, b in zip(low, given, high, strict=True))


def _compute(
    engine: Any, memory: Any, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]
) -> None:
    """Read the inputs where they lie, run the graph, write the outputs where they should be."""
    inputs = {}
    for name, shape in shapes.items():
        kind = numpy_type(engine._facts[name].type_name)
        data = memory.read(addresses[name], int(np.prod(shape)) * kind.itemsize)
        inputs[name] = np.frombuffer(data, kind).reshape(shape)
    names = [name for name, one in engine._facts.items() if not one.is_input]
    answer = engine._fake.compute or _run_graph
    for name, value in zip(names, answer(engine._session, names, inputs), strict=True):
        memory.write(addresses[name], np.ascontiguousarray(value).tobytes())


def _run_graph(session: Any, names: list[str], inputs: dict[str, Any]) -> list[Any]:
    found: list[Any] = session.run(names, inputs)
    return found
