"""Small objects of the fake: dimensions, host memory, tensors, parser errors, loggers."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable
from typing import Any

from fake_tensorrt.graph import Refusal, TensorFacts
from fake_tensorrt.sealing import Binding


class Dims(Binding):
    """Dimensions: a sequence that is no tuple and equals none, so `tuple(dims)` is needed."""

    _constructible = True
    MAX_DIMS = 8

    def __init__(self, values: Iterable[int] = ()) -> None:
        super().__init__()
        self._values = tuple(operator.index(one) for one in values)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> int:
        return self._values[index]


class IHostMemory(Binding):
    """Bytes that the library owns; `bytes(...)` copies them."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    def __bytes__(self) -> bytes:
        return self._data

    def __len__(self) -> int:
        return len(self._data)

    @property
    def nbytes(self) -> int:
        return len(self._data)


class ITensor(Binding):
    """One input or output of a network."""

    def __init__(self, facts: TensorFacts) -> None:
        super().__init__()
        self._facts = facts

    @property
    def name(self) -> str:
        return self._facts.name

    @property
    def shape(self) -> Any:
        return self._fake.new("Dims", self._facts.shape)

    @property
    def dtype(self) -> Any:
        return self._fake.enum("DataType")[self._facts.type_name]

    @property
    def is_network_input(self) -> bool:
        return self._facts.is_input

    @property
    def is_network_output(self) -> bool:
        return not self._facts.is_input


class ParserError(Binding):
    """One reason of the parser; its parts are methods, as in the binding."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__()
        self._refusal = refusal

    def code(self) -> Any:
        return self._fake.enum("ErrorCode")["UNSUPPORTED_NODE"]

    def desc(self) -> str:
        return self._refusal.desc

    def node(self) -> int:
        return self._refusal.node

    def node_name(self) -> str:
        return self._refusal.node_name

    def node_operator(self) -> str:
        return self._refusal.node_operator

    def file(self) -> str:
        return "ModelImporter.cpp"

    def func(self) -> str:
        return "importModel"

    def line(self) -> int:
        return 1


class ILogger(Binding):
    """To be subclassed; every message of every severity arrives at `log`."""

    _constructible = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError("Tried to call pure virtual function ILogger::log")


class Logger(ILogger):
    """Writes to stderr what is at least as severe as `min_severity`."""

    def __init__(self, min_severity: Any = None) -> None:
        super().__init__()
        self.min_severity = min_severity or self._fake.severity["WARNING"]

    def log(self, severity: Any, msg: str) -> None:
        if int(severity) <= int(self.min_severity):
            sys.stderr.write(f"[TRT] [{severity.name[0]}] {msg}\n")


class IProfiler(Binding):
    """To be subclassed; receives one line a layer after an enqueue."""

    _constructible = True

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError(
            "Tried to call pure virtual function IProfiler::report_layer_time"
        )


class Profiler(IProfiler):
    """Writes the times to stdout."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        sys.stdout.write(f"{layer_name}: {ms}ms\n")


class IProgressMonitor(Binding):
    """To be subclassed; is told of phases and steps of a build, and may stop it."""

    _constructible = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError("Tried to call pure virtual function phase_start")

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError("Tried to call pure virtual function step_complete")

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError("Tried to call pure virtual function phase_finish")
