"""One deserialised engine with its buffers, stream and graph: open, run, close, on one thread.

Only names that every TensorRT from 8.6 to 11 has are used here, and no version is looked at.
Every None and False is an error. Addresses are given once; a run enqueues and waits, and allocates
nothing but the copies of the outputs that its caller keeps. After a run that failed no other is
made, not even one that waited in the queue by then: what a context computes after an error is not
to be trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.engines import EngineFacts
from edge_runtime.engines.cuda_memory import DeviceMemory, SharedBlock, open_device_memory
from edge_runtime.engines.io_contract import INPUT_NAME, OUTPUT_NAMES, check_output_shapes
from edge_runtime.engines.trt_capabilities import import_tensorrt
from edge_runtime.engines.trt_log import trt_log
from edge_runtime.engines.trt_options import TrtOptions
from edge_runtime.errors import CudaError, EngineError

__all__ = ["TrtSession"]

_GREY = 128
_REBUILD = "build it again: edge-screen engine build"
_GRAPH_ATOL = 1e-3  # the graph replays the same kernels; FP16 logits differ by less than this


class TrtSession:
    """Everything that one engine holds on the device; for the thread that calls `open`."""

    def __init__(
        self,
        plan: bytes,
        *,
        size_px: int,
        num_labels: int,
        options: TrtOptions,
        profiler: Callable[[Any], Any] | None = None,
    ) -> None:
        """Prepare; nothing is acquired before `open`.

        Args:
            plan: The serialised engine, from the cache of a verified bundle.
            size_px: S.
            num_labels: L.
            options: How to run it.
            profiler: Makes an `IProfiler` of the imported module; for per-layer times.
        """
        self._plan: bytes | None = plan
        self._input_shape = (1, size_px, size_px, 3)
        self._num_labels = num_labels
        self._options = options
        self._make_profiler = profiler
        self._memory: DeviceMemory | None = None
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._profiler: Any = None
        self._blocks: dict[str, SharedBlock] = {}
        self._views: dict[str, NDArray[Any]] = {}
        self._has_graph = False
        self._failure: str | None = None

    def open(self) -> EngineFacts:
        """Acquire everything, warm up, record the graph; return what the engine runs on.

        Raises:
            EngineError: TensorRT or CUDA refuses. `close` must be called all the same.
        """
        trt = import_tensorrt()
        self._log = trt_log(module=trt)
        options = self._options
        self._memory = open_device_memory(
            binding=options.binding, memory=options.memory, wait=options.wait
        )
        self._load(trt)
        self._bind(trt)
        self._views[INPUT_NAME].fill(_GREY)
        self._run_once()
        why_no_graph = self._try_graph()
        for _ in range(options.warmup_runs - 1):
            self._run_once()
        return self._describe(trt, self._memory, why_no_graph)

    def run(self, image_nhwc: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run one picture of the right shape and type; return copies of the outputs.

        Raises:
            EngineError: TensorRT or CUDA failed; the session must be closed.
        """
        np.copyto(self._views[INPUT_NAME], image_nhwc)
        self._run_once()
        return {name: self._views[name].copy() for name in OUTPUT_NAMES}

    def keep_warm(self) -> None:
        """Run once on a grey picture, so that no patient's picture is used for it."""
        self._views[INPUT_NAME].fill(_GREY)
        self._run_once()

    def close(self) -> None:
        """Release everything in reverse order; a second call does nothing.

        Raises:
            CudaError: A release failed; the others were done all the same.
        """
        memory, self._memory = self._memory, None
        failures = [_failure_of(memory.drop_graph)] if memory is not None else []
        self._views.clear()
        self._blocks.clear()
        self._context = self._profiler = None
        self._engine = None
        self._runtime = None
        if memory is not None:
            failures.append(_failure_of(memory.close))
        texts = [text for text in failures if text]
        if texts:
            raise CudaError("; ".join(texts))

    # -- opening

    def _load(self, trt: Any) -> None:
        plan, self._plan = self._plan, None  # the engine has its own copy
        self._runtime = self._ask(trt.Runtime, self._log.logger, remedy="install TensorRT again")
        self._engine = self._ask(self._runtime.deserialize_cuda_engine, plan, remedy=_REBUILD)
        self._context = self._ask(
            self._engine.create_execution_context,
            remedy="the GPU lacks memory for it: close other programs",
        )

    def _bind(self, trt: Any) -> None:
        """Check every tensor against the contract, give it memory, tell the context where."""
        kinds, shapes = self._list_tensors(trt)
        if kinds.pop(INPUT_NAME, None) != ("input", trt.uint8):
            raise EngineError(f"the engine has no uint8 input {INPUT_NAME}; {_REBUILD}")
        if shapes.pop(INPUT_NAME) != self._input_shape:
            raise EngineError(f"the engine takes other than {self._input_shape}; {_REBUILD}")
        check_output_shapes(shapes, self._num_labels)
        if any(kind != ("output", trt.float32) for kind in kinds.values()):
            raise EngineError(f"an output of the engine is not float32; {_REBUILD}")
        self._place(INPUT_NAME, self._input_shape, np.dtype(np.uint8))
        for name in OUTPUT_NAMES:
            self._place(name, shapes[name], np.dtype(np.float32))
        self._ask(self._context.set_input_shape, INPUT_NAME, self._input_shape, remedy=_REBUILD)
        missing = self._ask(self._context.infer_shapes, remedy=_REBUILD)
        if len(missing) > 0:
            raise EngineError(f"TensorRT lacks the shapes of {list(missing)}; {_REBUILD}")
        if self._make_profiler is not None:
            self._profiler = self._context.profiler = self._make_profiler(trt)

    def _list_tensors(
        self, trt: Any
    ) -> tuple[dict[str, tuple[str, Any]], dict[str, tuple[int, ...]]]:
        """Return (mode, dtype) and shape of every tensor by name."""
        engine = self._engine
        kinds: dict[str, tuple[str, Any]] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for index in range(engine.num_io_tensors):
            name = str(self._ask(engine.get_tensor_name, index, remedy=_REBUILD))
            mode = self._ask(engine.get_tensor_mode, name, remedy=_REBUILD)
            dtype = self._ask(engine.get_tensor_dtype, name, remedy=_REBUILD)
            shape = self._ask(engine.get_tensor_shape, name, remedy=_REBUILD)
            kinds[name] = ("input" if mode == trt.TensorIOMode.INPUT else "output", dtype)
            shapes[name] = tuple(int(n) for n in shape)
        return kinds, shapes

    def _place(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Give a tensor its memory, which outlives the context."""
        block = self._device().allocate(int(np.prod(shape)) * dtype.itemsize)
        self._blocks[name] = block
        self._views[name] = block.host.view(dtype).reshape(shape)
        self._ask(self._context.set_tensor_address, name, block.address, remedy=_REBUILD)

    def _try_graph(self) -> str | None:
        """Record the graph and hold it against the plain run; return why there is none."""
        memory = self._device()
        if not self._options.cuda_graph:
            return "switched off"
        if self._profiler is not None:
            return "per-layer times need plain enqueueing"
        if not memory.can_capture:
            return f"{memory.binding} has no CUDA graphs"
        plain = {name: self._views[name].copy() for name in OUTPUT_NAMES}
        try:
            memory.begin_capture()
            self._enqueue()
            memory.end_capture()
        except EngineError as error:
            memory.abandon_capture()
            memory.drop_graph()
            return str(error)
        self._has_graph = True
        self._run_once()
        if all(np.allclose(self._views[n], plain[n], atol=_GRAPH_ATOL) for n in OUTPUT_NAMES):
            return None
        self._has_graph = False
        memory.drop_graph()
        return "the graph answered otherwise than the plain run"

    def _describe(self, trt: Any, memory: DeviceMemory, why_no_graph: str | None) -> EngineFacts:
        gpu, options = memory.facts, self._options
        major, minor = gpu.compute_capability
        warnings: tuple[str, ...] = ()
        if why_no_graph is not None and options.cuda_graph:
            warnings = (f"TensorRT runs without a CUDA graph: {why_no_graph}",)
        return EngineFacts(
            details={
                "tensorrt": str(trt.__version__),
                "gpu": f"{gpu.name}, compute capability {major}.{minor}",
                "cuda": gpu.cuda_version,
                "cuda_binding": memory.binding,
                "memory": f"{memory.kind} ({memory.kind_reason})",
                "cuda_graph": "captured" if why_no_graph is None else f"no: {why_no_graph}",
                "wait": options.wait,
            },
            warnings=warnings,
        )

    # -- running

    def _run_once(self) -> None:
        """Run what lies in the input; an output that is not written stays NaN and is refused."""
        if self._failure is not None:
            raise EngineError(
                f"the engine failed earlier ({self._failure}); close it and open it again"
            )
        for name in OUTPUT_NAMES:
            self._views[name].fill(np.nan)
        try:
            self._launch()
        except Exception as error:
            self._failure = str(error)
            raise

    def _launch(self) -> None:
        memory = self._device()
        if self._has_graph:
            memory.launch_graph()
        else:
            self._enqueue()
        memory.wait()

    def _enqueue(self) -> None:
        """Enqueue the copies and the kernels; the NaN in the outputs goes to the device as well."""
        memory, blocks = self._device(), self._blocks
        for block in blocks.values():
            memory.upload(block)
        self._ask(
            self._context.execute_async_v3,
            memory.stream_handle,
            remedy="close the engine and open it again",
        )
        for name in OUTPUT_NAMES:
            memory.download(blocks[name])

    def _device(self) -> DeviceMemory:
        if self._memory is None:
            raise EngineError("the engine is closed; open it again")
        return self._memory

    def _ask(self, function: Callable[..., Any], *arguments: Any, remedy: str) -> Any:
        """Call TensorRT; an exception, None and False are errors with its own words in them.

        Raised outside the `except` block, so that no frame of TensorRT's stays with the error.
        """
        self._log.forget()
        try:
            answer = function(*arguments)
            problem = "" if answer is not None and answer is not False else f"returned {answer}"
        except Exception as error:  # pybind11 raises whatever fits
            answer, problem = None, f"raised {type(error).__name__}: {error}"
        if not problem:
            return answer
        words = self._log.complaints()
        said = f" ({words})" if words else ""
        raise EngineError(f"TensorRT: {function.__name__} {problem}{said}; {remedy}")


def _failure_of(release: Callable[[], None]) -> str | None:
    try:
        release()
    except EngineError as error:
        return str(error)
    return None
