"""The process that builds: order and graph on stdin, JSON lines on stdout, the plan in a file.

    python -m edge_runtime.engines.trt_build_child  < order

It lives in a process of its own because a builder on a small board is killed for want of memory,
and because TensorRT keeps gigabytes that only the end of a process gives back. First comes one
line of JSON (`BuildOrder`), then the bytes of the graph, then those of the timing cache; then stdin
stays open, and its end means that the parent is gone: the build would serve nobody and stops.
Whatever a library writes to stdout goes to stderr, so that the lines stay clean.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edge_runtime.engines.trt_builder import BuiltEngine, build_engine
from edge_runtime.engines.trt_capabilities import import_tensorrt
from edge_runtime.engines.trt_recipe import EngineRecipe
from edge_runtime.errors import EdgeScreenError
from edge_runtime.strict_json import dataclass_to_dict, parse_json_object, read_dataclass

__all__ = ["BuildOrder", "main"]


@dataclass(frozen=True, kw_only=True)
class BuildOrder:
    """What to build and where to put it; the two files are new files in a private folder."""

    recipe: EngineRecipe
    workspace_bytes: int
    plan_path: str
    timing_cache_path: str
    num_onnx_bytes: int
    num_timing_cache_bytes: int


class _Events:
    """Writes JSON lines from any thread; a parent that is gone means: stop."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._parent_is_there = True

    def send(self, event: dict[str, Any]) -> bool:
        """Write one event; return False when nobody reads any longer."""
        with self._lock:
            try:
                self._stream.write(json.dumps(event) + "\n")
                self._stream.flush()
            except OSError:
                self._parent_is_there = False
            return self._parent_is_there


def main() -> int:
    """Build as ordered; 0 when the plan is written, 1 when an error was reported."""
    events = _Events(_take_stdout())
    try:
        order, onnx, timings = _read_order(sys.stdin.buffer)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        built = build_engine(
            import_tensorrt(),
            order.recipe,
            onnx,
            workspace_bytes=order.workspace_bytes,
            timing_cache=timings,
            report=events.send,
        )
        _write(order, built)
    except (EdgeScreenError, OSError) as error:
        events.send({"event": "error", "text": str(error)})
        return 1
    tensors = [dataclass_to_dict(one) for one in built.tensors]
    events.send({"event": "done", "tensors": tensors})
    return 0


def _take_stdout() -> IO[str]:
    """Keep stdout for the events alone, and send what others write there to stderr."""
    own = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(own, "w", encoding="utf-8")


def _read_order(stream: IO[bytes]) -> tuple[BuildOrder, bytes, bytes]:
    head = parse_json_object(stream.readline(), name="the build order")
    order = read_dataclass(BuildOrder, head)
    return order, stream.read(order.num_onnx_bytes), stream.read(order.num_timing_cache_bytes)


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever sent: it returns when the other end is closed
    os._exit(1)


def _write(order: BuildOrder, built: BuiltEngine) -> None:
    Path(order.plan_path).write_bytes(built.plan)
    Path(order.timing_cache_path).write_bytes(built.timing_cache)


if __name__ == "__main__":
    # Not through the interpreter's own end, where TensorRT and CUDA are known to crash: everything
    # is written and closed by now, and a crash would make a good build look like a failed one.
    os._exit(main())
