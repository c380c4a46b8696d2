"""One build with TensorRT: graph in, plan out, every None and False of the binding an error.

Runs in the child process (`trt_build_child`) and uses only names that every supported version
has; the one that some lack, the progress monitor, is asked for with `hasattr`. The engine is read
back at once, because a plan that cannot be loaded is no plan, and because only the engine says
what its inputs and outputs are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.engines.io_contract import INPUT_NAME, OUTPUT_NAMES
from edge_runtime.engines.trt_capabilities import check_recipe, member, network_bits
from edge_runtime.engines.trt_explain import explain_log
from edge_runtime.engines.trt_recipe import EngineRecipe
from edge_runtime.engines.trt_sidecar import TensorSpec
from edge_runtime.errors import EngineError

__all__ = ["BuildReport", "BuiltEngine", "build_engine"]

#: Receives one event, a dict of plain JSON types with the key "event"; False asks to stop.
BuildReport = Callable[[dict[str, Any]], bool]


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltEngine:
    """What a build gives: the plan, the new timing cache, and the engine's tensors."""

    plan: bytes = field(repr=False)
    timing_cache: bytes = field(repr=False)
    tensors: tuple[TensorSpec, ...]


class _Log:
    """The builder's messages, kept for an error and passed on."""

    def __init__(self, report: BuildReport) -> None:
        self._lines: list[str] = []
        self._report = report

    def add(self, severity: str, text: str) -> None:
        """Keep a message unless it was just said; the parser says things twice."""
        line = f"{severity} {text}"
        if line not in self._lines[-8:]:
            self._lines.append(line)
            self._report({"event": "log", "severity": severity, "text": text})

    def in_words(self) -> str:
        """What the messages mean."""
        return explain_log(self._lines)


def build_engine(
    trt: Any,
    recipe: EngineRecipe,
    onnx: bytes,
    *,
    workspace_bytes: int,
    timing_cache: bytes,
    report: BuildReport,
) -> BuiltEngine:
    """Build one engine.

    Args:
        trt: The module `tensorrt`.
        recipe: What to build; made for this version.
        onnx: Bytes of the graph that the recipe names by its hash.
        workspace_bytes: Limit of the builder's workspace.
        timing_cache: Serialised timing cache of an earlier build, or empty.
        report: Receives log lines and progress; called from several threads.

    Raises:
        EngineError: The binding refused, failed or raised; with its log in words.
    """
    log = _Log(report)
    logger = _make_logger(trt, log)
    with _explained("build the engine", log):
        check_recipe(trt, recipe)
        builder = _made(trt.Builder(logger), "make a builder", log)
        config = _made(builder.create_builder_config(), "make a configuration", log)
        _configure(trt, config, recipe, workspace_bytes, log)
        _add_profile(builder, config, recipe, log)
        _use_timing_cache(config, timing_cache, log)
        network = _parsed(trt, builder, recipe, logger, onnx, log)
        monitor = _watch(trt, config, report)  # must outlive the build
        built = builder.build_serialized_network(network, config)
        plan = _blob(built, "build the engine", log)
        cache = _made(config.get_timing_cache(), "keep its timings", log)
        timings = _blob(cache.serialize(), "keep its timings", log)
    del monitor, builder, config, network, built, cache  # before the engine takes its own memory
    with _explained("read the new engine back", log):
        runtime = _made(trt.Runtime(logger), "make a runtime", log)
        engine = runtime.deserialize_cuda_engine(plan)
        tensors = _tensors(trt, _made(engine, "read the new engine back", log))
        _check_tensors(tensors, recipe)
    return BuiltEngine(plan=plan, timing_cache=timings, tensors=tensors)


def _parsed(
    trt: Any, builder: Any, recipe: EngineRecipe, logger: Any, onnx: bytes, log: _Log
) -> Any:
    """Return the network with the graph in it; a refusal lists the parser's own reasons."""
    bits = network_bits(trt, recipe.network_flags)
    network = _made(builder.create_network(bits), "make a network", log)
    parser = _made(trt.OnnxParser(network, logger), "make a parser", log)
    if not parser.parse(onnx):
        reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        for reason in reasons:
            log.add("ERROR", reason)
        raise EngineError(f"TensorRT cannot parse the graph: {log.in_words()}")
    names = [network.get_input(i).name for i in range(network.num_inputs)]
    if names != [INPUT_NAME]:
        raise EngineError(f"the graph's inputs are {names}, not {INPUT_NAME}; export it again")
    return network


def _configure(
    trt: Any, config: Any, recipe: EngineRecipe, workspace_bytes: int, log: _Log
) -> None:
    """Set flags and limits, and read them back: the setters say nothing when they do nothing."""
    for name in recipe.set_flags:
        config.set_flag(member(trt, "BuilderFlag", name))
    for name in recipe.cleared_flags:
        config.clear_flag(member(trt, "BuilderFlag", name))
    for name in (*recipe.set_flags, *recipe.cleared_flags):
        if config.get_flag(member(trt, "BuilderFlag", name)) is not (name in recipe.set_flags):
            raise EngineError(f"TensorRT did not take the flag {name}: {log.in_words()}")
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    taken = config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)
    if taken != workspace_bytes:
        log.add("WARNING", f"the workspace is {taken} bytes, not the {workspace_bytes} asked for")
    config.builder_optimization_level = recipe.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED


def _add_profile(builder: Any, config: Any, recipe: EngineRecipe, log: _Log) -> None:
    """One profile of one shape: batch 1, as every bundle has it."""
    profile = _made(builder.create_optimization_profile(), "make a profile", log)
    shape = recipe.input_shape
    profile.set_shape(INPUT_NAME, shape, shape, shape)
    taken = [tuple(row) for row in profile.get_shape(INPUT_NAME)] == [shape] * 3
    index = config.add_optimization_profile(profile)
    if not taken or index != 0 or config.num_optimization_profiles != 1:
        raise EngineError(f"TensorRT refuses the profile {shape}: {log.in_words()}")


def _use_timing_cache(config: Any, known: bytes, log: _Log) -> None:
    """Attach the earlier timings, or an empty cache where they do not fit this builder.

    Timings that are refused in whatever way cost time and nothing else; they must not stop every
    build on this device until somebody clears them.
    """
    try:
        cache = config.create_timing_cache(known)
        if cache is not None and config.set_timing_cache(cache, False):
            return
    except Exception as error:  # the binding's own
        log.add("WARNING", f"the kept timings were refused: {error}")
    log.add("WARNING", "the kept timings do not fit this builder; timing starts anew")
    cache = _made(config.create_timing_cache(b""), "make a timing cache", log)
    if not config.set_timing_cache(cache, False):
        raise EngineError(f"TensorRT refuses an empty timing cache: {log.in_words()}")


def _watch(trt: Any, config: Any, report: BuildReport) -> Any:
    """Let the builder report its progress where the binding can; return the monitor or None."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Passes phases and steps on; must not raise, since it is called from C++ threads."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            event = {"event": "phase", "name": phase_name, "parent": parent_phase}
            report({**event, "num_steps": num_steps})

        def step_complete(self, phase_name: str, step: int) -> bool:
            return report({"event": "step", "name": phase_name, "step": step})

        def phase_finish(self, phase_name: str) -> None:
            report({"event": "finish", "name": phase_name})

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor


def _make_logger(trt: Any, log: _Log) -> Any:
    """A logger that keeps and passes on everything but the VERBOSE flood."""
    log_lines = log

    class Logger(trt.ILogger):  # type: ignore[misc]
        """Must not raise, since it is called from C++ threads."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity != trt.ILogger.VERBOSE:
                log_lines.add(severity.name, msg)

    return Logger()


def _tensors(trt: Any, engine: Any) -> tuple[TensorSpec, ...]:
    """Return what the engine says about its inputs and outputs, inputs first."""
    is_input = {trt.TensorIOMode.INPUT: True, trt.TensorIOMode.OUTPUT: False}  # never NONE
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    found = [
        TensorSpec(
            name=name,
            is_input=is_input[engine.get_tensor_mode(name)],
            dtype=trt.nptype(engine.get_tensor_dtype(name)).__name__,
            shape=tuple(int(n) for n in engine.get_tensor_shape(name)),
        )
        for name in names
    ]
    return tuple(sorted(found, key=lambda tensor: not tensor.is_input))


def _check_tensors(tensors: tuple[TensorSpec, ...], recipe: EngineRecipe) -> None:
    """Refuse an engine whose inputs and outputs are not those of the graph's contract."""
    by_name = {tensor.name: tensor for tensor in tensors}
    image = TensorSpec(name=INPUT_NAME, is_input=True, dtype="uint8", shape=recipe.input_shape)
    outputs = [tensor for tensor in tensors if not tensor.is_input]
    fits = (
        tensors[:1] == (image,)
        and sorted(by_name) == sorted((INPUT_NAME, *OUTPUT_NAMES))
        and len(outputs) == len(OUTPUT_NAMES) == len(tensors) - 1
        and all(one.dtype == "float32" and min(one.shape) > 0 for one in outputs)
        and by_name["logits"].shape == (1, recipe.num_labels)
    )
    if not fits:
        raise EngineError(f"the engine's tensors are {tensors}, not those of the bundle's graph")


def _blob(value: Any, what: str, log: _Log) -> bytes:
    """Return the bytes of a buffer of the binding, which must not be None or empty."""
    data = bytes(_made(value, what, log))
    if not data:
        raise EngineError(f"TensorRT could not {what}, the result is empty: {log.in_words()}")
    return data


def _made(value: Any, what: str, log: _Log) -> Any:
    """Return the value, or raise where the binding answered None."""
    if value is None:
        raise EngineError(f"TensorRT could not {what}: {log.in_words()}")
    return value


@contextlib.contextmanager
def _explained(what: str, log: _Log) -> Iterator[None]:
    """Turn whatever the binding raises into an EngineError with the log in words."""
    try:
        yield
    except EngineError:
        raise
    except Exception as error:  # the binding raises RuntimeError, TypeError, MemoryError, ...
        log.add("ERROR", f"{type(error).__name__}: {error}")
        raise EngineError(f"TensorRT failed to {what}: {log.in_words()}") from error
