"""Work on many items in threads: results in the order given, few items in memory at a time."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import cv2

__all__ = ["available_cpus", "map_in_order", "one_opencv_thread"]

_T = TypeVar("_T")
_R = TypeVar("_R")
# Two items a thread: one is worked on, one waits, so that a slow one at the head of the order
# does not leave the other threads without work.
_WINDOW_PER_THREAD = 2


def available_cpus() -> int:
    """Return how many CPUs this process may use (its affinity, where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_in_order(
    work: Callable[[_T], _R], items: Iterable[_T], *, num_threads: int
) -> Iterator[_R]:
    """Yield `work(item)` for every item, in order, from `num_threads` threads.

    At most two items a thread are taken ahead of the consumer. An error of `items` itself is
    raised after the results of all items before it; an error of `work` is raised in its place
    and ends the iteration, so `work` should not raise. Closing the iterator early waits for the
    items that are being worked on and drops the rest.
    """
    source = iter(items)
    window = _WINDOW_PER_THREAD * num_threads
    waiting: deque[Future[_R]] = deque()
    failure: Exception | None = None
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="edge-screen")
    try:
        while failure is None:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            waiting.append(pool.submit(work, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _OpencvThreads:
    """How many `one_opencv_thread` blocks are open, and what they will restore."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.num_open = 0
        self.before = 0


_opencv = _OpencvThreads()


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own until the block ends, in the whole process.

    With one picture a thread, OpenCV's pool only adds CPU time. The number is one for all threads
    of the process, which is why nothing in this package sets it for a vendor: he opens the block
    around what he knows. Blocks may overlap in several threads; the last to end restores what the
    first one found.
    """
    with _opencv.lock:
        if _opencv.num_open == 0:
            _opencv.before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _opencv.num_open += 1
    try:
        yield
    finally:
        with _opencv.lock:
            _opencv.num_open -= 1
            if _opencv.num_open == 0:
                cv2.setNumThreads(_opencv.before)
