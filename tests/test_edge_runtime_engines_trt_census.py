"""Every tensorrt name that edge_runtime reaches exists in every version that can get there (L0)."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from census_walk import attributes_of, findings, moving_names, reached, reaches_tensorrt

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "edge_runtime").rglob("*.py"))
}
REACHING = {name: text for name, text in SOURCES.items() if reaches_tensorrt(text)}
OWN_NAMES = attributes_of(SOURCES.values())
# The one place where a name is computed: it turns a missing one into an EngineError.
RESOLVER = "edge_runtime/engines/trt_capabilities.py"


@pytest.mark.parametrize("name", REACHING)
def test_no_name_is_reached_in_a_version_that_lacks_it(name: str) -> None:
    found = findings(SOURCES[name], OWN_NAMES)
    if name == RESOLVER:
        found = [one for one in found if one.path != "getattr"]
    assert found == []


def test_the_resolver_computes_names_in_one_function_only() -> None:
    found = [one.line for one in findings(SOURCES[RESOLVER], OWN_NAMES) if one.path == "getattr"]
    (first,) = set(found)
    body = SOURCES[RESOLVER].splitlines()
    above = [line for line in body[:first] if line.startswith("def ")]
    assert above[-1].startswith("def member(")


def test_the_walk_is_not_blind() -> None:
    paths = set().union(*(reached(text) for text in REACHING.values()))
    assert paths >= {
        "Builder",
        "Builder.build_serialized_network",
        "BuilderFlag",
        "IBuilderConfig.progress_monitor",
        "IBuilderConfig.set_memory_pool_limit",
        "ICudaEngine.create_execution_context",
        "ICudaEngine.get_tensor_mode",
        "ICudaEngine.num_io_tensors",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.infer_shapes",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.set_tensor_address",
        "IProfiler.report_layer_time",
        "ILogger.VERBOSE",
        "IOptimizationProfile.set_shape",
        "IProgressMonitor.step_complete",
        "ITimingCache.serialize",
        "MemoryPoolType.WORKSPACE",
        "OnnxParser.parse",
        "ParserError.desc",
        "Runtime.deserialize_cuda_engine",
        "nptype",
    }
    assert "edge_runtime/engines/trt_builder.py" in REACHING
    assert {"execute_async_v2", "num_bindings", "build_engine"} <= moving_names()
    assert not {"execute_async_v3", "num_io_tensors"} & moving_names()


BAD = {
    "an unguarded INT8 flag": (
        "def f(trt, config): config.set_flag(trt.BuilderFlag.INT8)",
        "BuilderFlag.INT8",
    ),
    "an unguarded EXPLICIT_BATCH": (
        "import tensorrt as t\nBIT = 1 << int(t.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)",
        "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    ),
    "a removed method on a known object": (
        "def f(trt):\n    builder = trt.Builder(None)\n    builder.build_engine(1, 2)",
        "Builder.build_engine",
    ),
    "a removed property behind a wrapper": (
        "def f(trt):\n    b = _made(trt.Builder(None), 'x')\n    return b.platform_has_fast_int8",
        "Builder.platform_has_fast_int8",
    ),
    "a removed method on an attribute": (
        """
        class Session:
            def __init__(self, trt, plan):
                self._engine = trt.Runtime(None).deserialize_cuda_engine(plan)
            def size(self):
                return self._engine.device_memory_size
        """,
        "ICudaEngine.device_memory_size",
    ),
    "a removed method on a parameter": (
        "def f(context: Any): context.execute_async_v2([], 0)",
        "IExecutionContext.execute_async_v2",
    ),
    "a removed name on an object of unknown type": (
        "def f(thing): return thing.num_bindings",
        "num_bindings",
    ),
    "a guard for another name": (
        """
        def f(trt, config):
            if hasattr(trt, "IProgressMonitor"):
                config.set_flag(trt.BuilderFlag.FP16)
        """,
        "BuilderFlag.FP16",
    ),
    "the wrong side of a guard": (
        """
        def f(trt, config: Any):
            if hasattr(trt, "IProgressMonitor"):
                pass
            else:
                config.progress_monitor = None
        """,
        "IBuilderConfig.progress_monitor",
    ),
    "after a guard that does not leave": (
        """
        def f(trt, config: Any):
            if not hasattr(trt, "IProgressMonitor"):
                print("old")
            config.progress_monitor = None
        """,
        "IBuilderConfig.progress_monitor",
    ),
    "a removed method on a declared attribute, behind a wrapper": (
        """
        class Session:
            def __init__(self):
                self._runtime: Any = None
                self._engine: Any = None
            def open(self, plan):
                self._engine = self._ask(self._runtime.deserialize_cuda_engine, plan)
                context = self._ask(self._engine.create_execution_context)
                return self._engine.num_layers, context.execute_async_v2
        """,
        "IExecutionContext.execute_async_v2",
    ),
    "a name that never was": ("def f(trt): return trt.Bilder", "Bilder"),
    "a probe for a name that never was": (
        "def f(trt): return hasattr(trt, 'IProgresMonitor')",
        "IProgresMonitor",
    ),
    "a computed name": ("def f(trt, name): return getattr(trt.BuilderFlag, name)", "getattr"),
    "a literal getattr without a default": (
        "def f(trt): return getattr(trt.BuilderFlag, 'INT8')",
        "BuilderFlag.INT8",
    ),
    "an overridden method that the base lacks": (
        """
        def f(trt):
            if not hasattr(trt, "IProgressMonitor"):
                return None
            class Monitor(trt.IProgressMonitor):
                def phase_end(self, name): pass
            return Monitor()
        """,
        "IProgressMonitor.phase_end",
    ),
    "a literal flag": ("def f(builder: Any): return builder.create_network(1)", "create_network"),
    "a member of a class that moves": (
        "def f(trt): return member(trt, 'BuilderFlag', 'INT8')",
        "BuilderFlag.INT8",
    ),
    "inside a comprehension and a lambda": (
        "def f(trt): return [lambda: trt.BuilderFlag.INT8 for _ in range(2)]",
        "BuilderFlag.INT8",
    ),
    "inside with and try": (
        "def f(trt):\n    try:\n        with g():\n            trt.BuilderFlag.BF16\n"
        "    except ValueError:\n        pass",
        "BuilderFlag.BF16",
    ),
    "in an except clause": (
        "def f(trt):\n    try:\n        pass\n    except ValueError:\n        trt.BuilderFlag.BF16",
        "BuilderFlag.BF16",
    ),
}
GOOD = {
    "a guard and its branch": """
        def f(trt, config):
            if hasattr(trt.BuilderFlag, "INT8"):
                config.set_flag(trt.BuilderFlag.INT8)
        """,
    "a guard that leaves": """
        def f(trt, config: Any):
            if not hasattr(trt, "IProgressMonitor"):
                return
            config.progress_monitor = trt.IProgressMonitor()
        """,
    "a conditional expression": """
        def f(trt):
            flags = trt.NetworkDefinitionCreationFlag
            return 1 if hasattr(trt.BuilderFlag, "INT8") and trt.BuilderFlag.INT8 else 0
        """,
    "a literal getattr with a default": "def f(trt): return getattr(trt.BuilderFlag, 'INT8', None)",
    "names of every version": """
        def f(trt, context: Any):
            context.set_tensor_address("x", 1)
            return trt.TensorIOMode.INPUT, context.execute_async_v3(0)
        """,
    "a variable that is something else": """
        def f(engine: str, config: dict[str, int]):
            return engine.upper(), config.items()
        """,
}


@pytest.mark.parametrize("what", BAD)
def test_a_planted_fault_is_found(what: str) -> None:
    source, path = BAD[what]
    found = findings(textwrap.dedent(source))
    assert [one.path for one in found] == [path], found


@pytest.mark.parametrize("what", GOOD)
def test_what_is_guarded_is_fine(what: str) -> None:
    assert findings(textwrap.dedent(GOOD[what])) == []


@pytest.mark.parametrize(
    ("good", "bad", "path"),
    [
        ("execute_async_v3", "execute_async_v2", "IExecutionContext.execute_async_v2"),
        ("num_io_tensors", "num_bindings", "ICudaEngine.num_bindings"),
        ("context.set_input_shape", "context.set_binding", "IExecutionContext.set_binding"),
        ("trt.Runtime", "trt.Runtme", "Runtme"),
    ],
)
def test_a_fault_planted_into_the_real_session_is_found(good: str, bad: str, path: str) -> None:
    text = SOURCES["edge_runtime/engines/trt_session.py"]
    assert good in text
    assert path in {one.path for one in findings(text.replace(good, bad), OWN_NAMES)}


def test_a_fault_planted_into_the_real_builder_is_found() -> None:
    text = SOURCES["edge_runtime/engines/trt_builder.py"]
    assert findings(text, OWN_NAMES) == []
    guard = '    if not hasattr(trt, "IProgressMonitor"):\n        return None\n'
    assert guard in text
    paths = {one.path for one in findings(text.replace(guard, ""), OWN_NAMES)}
    assert {"IProgressMonitor", "IBuilderConfig.progress_monitor"} <= paths
