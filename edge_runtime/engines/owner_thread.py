"""One thread that owns something which may not be touched by another, and a queue to it.

Callers hand in work and wait for its answer, in the order in which they came. The queue is
bounded and every wait has an end, so that a device that hangs never hangs the camera's program.

An exception does not cross to the caller as it is: its traceback would keep the locals of the
owner's frames, CUDA objects among them, alive on another thread. Its class and message cross.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edge_runtime.errors import EdgeScreenError, EngineBusyError, EngineError

__all__ = ["OwnerThread"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(kw_only=True, eq=False)
class _Job:
    """Work (None: the last job), how long and until when its caller waits, and its answer."""

    work: Callable[[], Any] | None
    timeout_s: float = 0.0
    give_up_at: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)
    value: Any = None
    failure: EdgeScreenError | None = None


class OwnerThread:
    """A running thread. `stop` must be called; the thread does not keep the process alive."""

    def __init__(
        self,
        name: str,
        *,
        max_waiting: int,
        idle_s: float | None = None,
        on_idle: Callable[[], object] | None = None,
    ) -> None:
        """Start the thread.

        Args:
            name: Of the thread, for whoever looks at a stack dump.
            max_waiting: Jobs that may wait behind the one that runs.
            idle_s: Call `on_idle` after every stretch of this many seconds without a job.
            on_idle: Work of the owner itself; a failure in it is what `failure` then says.
        """
        self.failure: str | None = None
        self._queue: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._max_waiting = max_waiting
        self._idle_s, self._on_idle = idle_s, on_idle
        self._lock = threading.Lock()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], _T], *, timeout_s: float) -> _T:
        """Have the owner do `work` and return its answer.

        Raises:
            EngineBusyError: The queue is full, or there was no answer within `timeout_s`.
            EdgeScreenError: What the work raised, as a new object of the same class.
            EngineError: The thread was stopped, or the work raised something else.
        """
        job = _Job(work=work, timeout_s=timeout_s, give_up_at=time.monotonic() + timeout_s)
        with self._lock:  # nothing may be queued behind the last job
            if self._is_stopping:
                raise EngineError("the engine is closed; open it again")
            if self._queue.qsize() >= self._max_waiting:
                raise EngineBusyError(
                    f"{self._max_waiting} calls wait for the engine already; "
                    "send fewer pictures at once"
                )
            self._queue.put(job)
        if not job.done.wait(timeout_s):
            raise _late(timeout_s)
        if job.failure is not None:
            raise job.failure
        answer: _T = job.value
        return answer

    def stop(self, last: Callable[[], object], *, timeout_s: float) -> None:
        """Finish what waits, do `last`, end the thread. A second call does nothing.

        Raises:
            EngineError: The thread hangs and was given up.
            EdgeScreenError: What `last` raised; the thread has ended.
        """
        job = _Job(work=last, give_up_at=float("inf"))
        with self._lock:
            if self._is_stopping:
                return
            self._is_stopping = True
            self._queue.put(job)
            self._queue.put(_Job(work=None))
        if threading.current_thread() is self._thread:
            return  # a garbage collection ran here: the loop comes to it by itself
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise EngineError(
                f"the device did not answer within {timeout_s:g} s while the engine was closed; "
                "end this program, and restart the device if it repeats"
            )
        if job.failure is not None:
            raise job.failure

    def _loop(self) -> None:
        while True:
            try:
                job = self._queue.get(timeout=self._idle_s)
            except queue.Empty:
                self._idle()
                continue
            if job.work is None:
                return
            if time.monotonic() < job.give_up_at:
                job.value, job.failure = _attempt(job.work)
            else:  # its caller may wait a moment longer, and must not take nothing for an answer
                job.failure = _late(job.timeout_s)
            job.done.set()
            del job  # or the last caller's picture would live on while the thread waits

    def _idle(self) -> None:
        if self._on_idle is None or self.failure is not None or self._is_stopping:
            return
        _, failure = _attempt(self._on_idle)
        if failure is not None:
            self.failure = str(failure)


def _late(timeout_s: float) -> EngineBusyError:
    return EngineBusyError(
        f"the engine did not answer within {timeout_s:g} s; if it repeats, restart the device"
    )


def _attempt(work: Callable[[], Any]) -> tuple[Any, EdgeScreenError | None]:
    """Return the answer, or an error of the tree without traceback, cause or context."""
    try:
        return work(), None
    except EdgeScreenError as error:
        kind, text = type(error), str(error)
    except Exception as error:  # whatever a vendor's library raises
        _log.exception("the engine's thread met an error that nobody foresaw")
        kind, text = EngineError, f"{type(error).__name__}: {error}; report this"
    return None, kind(text)
