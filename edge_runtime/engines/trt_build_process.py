"""Runs one build in a child process: feeds it, narrates its progress, explains its death.

The child is `python -m edge_runtime.engines.trt_build_child`. It works in a private folder that is
also its working directory, so that nothing lying around can shadow a module. It has no way to the
cache: the parent takes over the finished plan.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_runtime.engines.trt_build_child import BuildOrder
from edge_runtime.engines.trt_explain import Death, explain_death
from edge_runtime.engines.trt_narrator import Narrator
from edge_runtime.engines.trt_recipe import EngineRecipe
from edge_runtime.engines.trt_sidecar import TensorSpec
from edge_runtime.errors import EngineError
from edge_runtime.machine_memory import available_bytes, num_oom_kills
from edge_runtime.strict_json import dataclass_to_dict, read_dataclass

__all__ = ["BuildResult", "run_build", "workspace_limit"]

_MODULE = "edge_runtime.engines.trt_build_child"
_MAX_WORKSPACE_BYTES = 256 << 20
_MIN_WORKSPACE_BYTES = 16 << 20
_LOG_LINES = 400
_LAST_WORDS_BYTES = 2000
#: A build takes minutes; one that takes longer than this hangs.
_LIMIT_S = 7200.0
_SILENCE_S = 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class BuildResult:
    """What the child made, and what there is to say about it."""

    plan: bytes = field(repr=False)
    timing_cache: bytes = field(repr=False)
    tensors: tuple[TensorSpec, ...]
    build_s: float
    log: tuple[str, ...]
    num_log_lines_dropped: int


def workspace_limit(available: int) -> int:
    """Return the builder's workspace in bytes: 256 MiB, or a quarter of the free memory.

    Args:
        available: Bytes of memory that can be had without swapping.

    Raises:
        EngineError: A quarter of it is too little for any kernel.
    """
    limit = min(_MAX_WORKSPACE_BYTES, available // 4)
    if limit < _MIN_WORKSPACE_BYTES:
        raise EngineError(
            f"only {available >> 20} MiB of memory are free, too little to build an engine; close "
            "other programs or restart the device, then build again"
        )
    return limit


def run_build(
    recipe: EngineRecipe,
    onnx: bytes,
    *,
    work_dir: Path,
    workspace_bytes: int,
    timing_cache: bytes,
    progress: Callable[[str], None],
    limit_s: float = _LIMIT_S,
) -> BuildResult:
    """Build in a child process and return what it made.

    Args:
        recipe: What to build.
        onnx: The graph's verified bytes.
        work_dir: An empty private folder.
        workspace_bytes: From `workspace_limit`.
        timing_cache: Of an earlier build, or empty.
        progress: Receives lines of text for a person.
        limit_s: The child is killed after so many seconds.

    Raises:
        EngineError: The build failed, the child could not be started, died or took too long, or
            what it wrote cannot be read; the child is gone.
    """
    order = BuildOrder(
        recipe=recipe,
        workspace_bytes=workspace_bytes,
        plan_path=str(work_dir / "plan"),
        timing_cache_path=str(work_dir / "timings"),
        num_onnx_bytes=len(onnx),
        num_timing_cache_bytes=len(timing_cache),
    )
    state = _State(Narrator(progress), available_bytes(), num_oom_kills())
    try:
        return_code = _attend(order, onnx, timing_cache, work_dir, state, limit_s)
        return _result(order, state, return_code, work_dir)
    except OSError as error:  # no memory for another process, no space in the cache folder
        raise EngineError(
            f"the engine was not built: {error}; close other programs and free space in "
            f"{work_dir.parent}, then build again"
        ) from error


def _attend(
    order: BuildOrder,
    onnx: bytes,
    timing_cache: bytes,
    work_dir: Path,
    state: _State,
    limit_s: float,
) -> int:
    """Start the child, feed it and hear it out; return its exit code."""
    with _started(work_dir) as child:
        _feed(child, order, onnx, timing_cache)
        for line in _lines(child, state, limit_s):
            state.take(line)
        return child.wait()


def _result(order: BuildOrder, state: _State, return_code: int, work_dir: Path) -> BuildResult:
    """Return what a child that said so has made."""
    if state.error is not None:
        raise EngineError(f"the engine was not built: {state.error}")
    if state.tensors is None or return_code != 0:
        raise EngineError(f"the engine was not built: {_death(state, return_code, work_dir)}")
    return BuildResult(
        plan=Path(order.plan_path).read_bytes(),
        timing_cache=Path(order.timing_cache_path).read_bytes(),
        tensors=state.tensors,
        build_s=state.elapsed_s,
        log=tuple(state.log),
        num_log_lines_dropped=state.num_lines - len(state.log),
    )


class _State:
    """What the child has said so far."""

    def __init__(self, narrator: Narrator, available: int, oom_kills: int | None) -> None:
        self.narrator = narrator
        self.available = available
        self.oom_kills_before = oom_kills
        self.error: str | None = None
        self.tensors: tuple[TensorSpec, ...] | None = None
        self.log: deque[str] = deque(maxlen=_LOG_LINES)
        self.num_lines = 0
        self._start = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    def take(self, line: bytes) -> None:
        event: dict[str, Any] = json.loads(line)
        kind = event["event"]
        if kind == "log":
            self.num_lines += 1
            self.log.append(f"{event['severity']} {event['text']}")
        elif kind == "error":
            self.error = event["text"]
        elif kind == "done":
            self.tensors = tuple(read_dataclass(TensorSpec, one) for one in event["tensors"])
        else:
            self.narrator.take(event)


@contextlib.contextmanager
def _started(work_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start the child; whatever happens, it is gone and its pipes are closed afterwards."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    search = os.pathsep.join(str(Path(one).absolute()) for one in paths if one)
    with (work_dir / "stderr").open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=work_dir,
            env={**os.environ, "PYTHONPATH": search},
        )
    try:
        yield child
    finally:
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        child.wait()


def _feed(
    child: subprocess.Popen[bytes], order: BuildOrder, onnx: bytes, timing_cache: bytes
) -> None:
    """Send the order, and keep the pipe open: its end tells the child that its parent is gone.

    A child that dies meanwhile is explained by its death, not by the pipe.
    """
    assert child.stdin is not None
    head = json.dumps(dataclass_to_dict(order)).encode() + b"\n"
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(head + onnx + timing_cache)
        child.stdin.flush()


def _lines(child: subprocess.Popen[bytes], state: _State, limit_s: float) -> Iterator[bytes]:
    """Yield the child's lines until it closes its stdout; speak when it is silent for long."""
    assert child.stdout is not None
    rest = b""
    while True:
        if state.elapsed_s > limit_s:
            raise EngineError(
                f"the builder was stopped after {limit_s:.0f} s without an end; restart the device "
                "and build again"
            )
        ready, _, _ = select.select([child.stdout], [], [], min(_SILENCE_S, limit_s / 4))
        if not ready:
            state.narrator.still_at_it()
            continue
        data = os.read(child.stdout.fileno(), 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _death(state: _State, return_code: int, work_dir: Path) -> str:
    now, before = num_oom_kills(), state.oom_kills_before
    rose = None if now is None or before is None else now - before
    words = (work_dir / "stderr").read_bytes()[-_LAST_WORDS_BYTES:].decode("utf-8", "replace")
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return explain_death(
        Death(
            return_code=return_code,
            oom_kills=rose if return_code == -signal.SIGKILL else None,
            available_mib=state.available >> 20,
            peak_mib=peak_kib >> 10,
            last_words=(words.strip().splitlines() or [""])[-1],
        )
    )
