"""The fake `tensorrt`: one object a version, whose module the code under test imports.

    with FakeTensorRT("10.3.0").installed() as fake:
        fake.fail("Builder.build_serialized_network", how="none")   # its first call gives None
        ...                                                         # code that imports tensorrt
        assert fake.live("ICudaEngine") == 0

`fake.memory` is what engines read and write through (`fake_tensorrt.memory.Memory`): replace it
by a fake CUDA. `fake.environment()` lets a child process import the same fake, with the same
failures. `fake.calls` counts the calls of each method by 'Class.method'.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from fake_tensorrt import builder, enums, network, runtime, values
from fake_tensorrt.census import Census
from fake_tensorrt.graph import numpy_type
from fake_tensorrt.memory import Memory, PlainMemory
from fake_tensorrt.sealing import Binding, sealed

VERSIONS = ("8.6.1", "10.3.0", "10.16.1.11", "11.4.0.106")
VARIABLE = "EDGE_SCREEN_TEST_FAKE_TENSORRT"
_FOLDER = Path(__file__).parent
_ROOMS = (builder, network, runtime, values)
_SCALARS = {
    "float32": "FLOAT",
    "float16": "HALF",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "bool": "BOOL",
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The `call`-th call (from 1) of 'Class.method', or of a constructor 'Class', goes wrong."""

    path: str
    call: int
    how: str  # raise, none, false or kill (SIGKILL of the process that calls)


@dataclass(frozen=True)
class Outcome:
    """What a call returns instead of its own answer."""

    value: Any


class FakeTensorRT:
    """State of one fake: its version, device, memory, failures to come, and what is alive."""

    def __init__(
        self,
        version: str,
        *,
        memory: Memory | None = None,
        device_name: str = "Orin",
        compute_capability: tuple[int, int] = (8, 7),
        min_workspace_bytes: int = 0,
        compute: Callable[[Any, list[str], dict[str, Any]], list[Any]] | None = None,
    ) -> None:
        """Make a fake of one census version.

        Args:
            version: A version of the census, e.g. "10.3.0".
            memory: Device memory; a `PlainMemory` unless given.
            device_name: Bound into plans and timing caches.
            compute_capability: As `device_name`.
            min_workspace_bytes: A build with a smaller workspace limit finds no implementation.
            compute: Answers instead of ONNX Runtime: (session, output names, inputs) -> arrays.
        """
        self.version = version
        self.census = Census(version=version)
        self.memory: Memory = memory or PlainMemory()
        self.device_name = device_name
        self.compute_capability = compute_capability
        self.device_memory_bytes = 8 << 30
        self.min_workspace_bytes = min_workspace_bytes
        self.num_dla_cores = 0
        self.compute = compute
        self.calls: Counter[str] = Counter()
        self.alive: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.severity = enums.severities()
        self._enums = enums.enumerations(self.census)
        self._classes = _seal_all(self)
        self.module = _make_module(self)

    @property
    def owner(self) -> str:
        """What plans and timing caches bind to."""
        return f"{self.version}/{self.device_name}/{self.compute_capability}"

    def enum(self, name: str) -> Any:
        """An enumeration of the module."""
        return self._enums[name]

    def new(self, name: str, *args: Any) -> Any:
        """Make an object of a class that has no public constructor."""
        cls: Any = self._classes[name]
        made = cls.__new__(cls)
        made.__init__(*args)
        return made

    def log(self, logger: Any, severity: str, text: str) -> None:
        """Send a message to the logger that the code under test has given."""
        logger.log(self.severity[severity], text)

    def fail(self, path: str, *, call: int = 1, how: str = "raise") -> None:
        """Let the `call`-th call of 'Class.method' or of the constructor 'Class' go wrong."""
        if not self.census.has(path):
            raise ValueError(f"TensorRT {self.version} has no {path}")
        if how not in ("raise", "none", "false", "kill"):
            raise ValueError(f"how is {how!r}")
        self.failures.append(Failure(path=path, call=call, how=how))

    def before_call(self, path: str) -> Outcome | None:
        """Count a call; fail it when that was asked for."""
        self.calls[path] += 1
        for one in self.failures:
            if one.path == path and one.call == self.calls[path]:
                return _go_wrong(one)
        return None

    def live(self, *names: str) -> int:
        """How many objects of these classes (of all but values and enums, without names) live."""
        kinds = names or [name for name in self.alive if name not in ("Dims", "Logger", "ILogger")]
        if any(self.alive[name] for name in kinds):
            gc.collect()  # an exception's traceback may form a cycle
        return sum(self.alive[name] for name in kinds)

    @contextlib.contextmanager
    def installed(self) -> Iterator[FakeTensorRT]:
        """Be what `import tensorrt` finds in this process."""
        before = sys.modules.get("tensorrt")
        sys.modules["tensorrt"] = self.module
        try:
            yield self
        finally:
            del sys.modules["tensorrt"]
            if before is not None:
                sys.modules["tensorrt"] = before

    def environment(self) -> dict[str, str]:
        """Variables with which a child process imports this fake as `tensorrt`."""
        settings = {
            "version": self.version,
            "device_name": self.device_name,
            "compute_capability": self.compute_capability,
            "min_workspace_bytes": self.min_workspace_bytes,
        }
        text = json.dumps([settings, [asdict(one) for one in self.failures]])
        paths = [str(_FOLDER / "site"), str(_FOLDER.parent), os.environ.get("PYTHONPATH", "")]
        return {VARIABLE: text, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def from_environment() -> FakeTensorRT:
    """The fake that `FakeTensorRT.environment` of the parent process described."""
    settings, failures = json.loads(os.environ[VARIABLE])
    settings["compute_capability"] = tuple(settings["compute_capability"])
    fake = FakeTensorRT(**settings)
    for one in failures:
        fake.fail(one["path"], call=one["call"], how=one["how"])
    return fake


def _go_wrong(failure: Failure) -> Outcome:
    if failure.how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if failure.how == "raise":
        raise RuntimeError(f"injected: {failure.path}, call {failure.call}")
    return Outcome(None if failure.how == "none" else False)


def _seal_all(fake: FakeTensorRT) -> dict[str, type[Binding]]:
    """Every implementation of the rooms, as the version has it."""
    found = {}
    for room in _ROOMS:
        for name, one in vars(room).items():
            is_ours = isinstance(one, type) and issubclass(one, Binding) and one is not Binding
            if is_ours and fake.census.has(name):
                found[name] = sealed(fake, one, name)
    return found


def _make_module(fake: FakeTensorRT) -> ModuleType:
    """The module; a name that the census has and the fake lacks is a NotImplementedError."""
    module = ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)
    module.__version__ = fake.version  # type: ignore[attr-defined]
    for name, made in {**fake._classes, **fake._enums, **_functions(fake)}.items():
        setattr(module, name, made)
    for name in ("ILogger", "Logger"):
        type.__setattr__(fake._classes[name], "Severity", fake.severity)
        for severity in fake.severity:
            type.__setattr__(fake._classes[name], severity.name, severity)

    def missing(name: str) -> Any:
        if not name.startswith("_") and fake.census.has(name):
            raise NotImplementedError(f"the fake has no tensorrt.{name} yet; extend it")
        raise AttributeError(f"module 'tensorrt' {fake.version} has no attribute {name!r}")

    module.__getattr__ = missing  # type: ignore[method-assign]
    return module


def _functions(fake: FakeTensorRT) -> dict[str, Any]:
    types = fake.enum("DataType")
    found: dict[str, Any] = {
        name: types[kind] for name, kind in _SCALARS.items() if fake.census.has(name)
    }
    found["nptype"] = lambda one: numpy_type(one.name).type
    found["volume"] = lambda shape: int(np.prod(tuple(shape)))
    found["init_libnvinfer_plugins"] = lambda _logger, _namespace: True
    return found
