"""Many items in threads: order, a bounded window, errors in their place, nothing left running."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from edge_runtime.batch import available_cpus, map_in_order, one_opencv_thread


@pytest.mark.parametrize("num_threads", [1, 2, 8])
def test_results_come_in_the_order_of_the_items(num_threads: int) -> None:
    delays = np.random.default_rng(0).uniform(0.0, 0.01, 40).tolist()

    def work(number: int) -> int:
        time.sleep(delays[number])
        return number * number

    found = list(map_in_order(work, range(40), num_threads=num_threads))
    assert found == [n * n for n in range(40)]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_only_two_items_a_thread_are_taken_ahead_of_the_consumer(num_threads: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(50):
            taken += 1
            yield number

    for num_given, _ in enumerate(map_in_order(abs, items(), num_threads=num_threads)):
        assert taken - num_given <= 2 * num_threads
    assert taken == 50


def test_as_many_run_at_once_as_there_are_threads_and_no_more() -> None:
    running, most, lock = 0, 0, threading.Lock()
    meet = threading.Barrier(3, timeout=20.0)

    def work(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        meet.wait()  # passes only when three are here at the same time
        with lock:
            running -= 1

    list(map_in_order(work, range(9), num_threads=3))
    assert most == 3


def test_nothing_is_taken_before_the_first_result_is_asked_for() -> None:
    def items() -> Iterator[int]:
        raise AssertionError("taken")
        yield 0

    map_in_order(abs, items(), num_threads=2)


def test_an_error_of_the_items_comes_after_the_results_before_it() -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise OSError("the card was pulled out")

    results = map_in_order(abs, items(), num_threads=8)
    assert [next(results) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(OSError, match="pulled out"):
        next(results)


def test_breaking_off_waits_for_what_runs_and_drops_the_rest() -> None:
    """Of the four that two threads take, one is given, two run and one waits."""
    done: list[int] = []
    gate, both_run = threading.Event(), threading.Barrier(3)

    def work(number: int) -> int:
        if number > 0:
            both_run.wait(timeout=20.0)
            assert gate.wait(timeout=20.0)
        done.append(number)
        return number

    results = map_in_order(work, range(1000), num_threads=2)
    assert next(results) == 0
    both_run.wait(timeout=20.0)
    threading.Timer(0.2, gate.set).start()
    results.close()
    assert gate.is_set()
    assert sorted(done) == [0, 1, 2]
    assert not [t for t in threading.enumerate() if t.name.startswith("edge-screen")]


def test_available_cpus_is_what_the_process_may_use() -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        allowed = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(allowed)})
            assert available_cpus() == 1
        finally:
            os.sched_setaffinity(0, allowed)


@pytest.fixture
def opencv_threads() -> Iterator[int]:
    """A number of threads that is not one, put back afterwards."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    yield cv2.getNumThreads()
    cv2.setNumThreads(before)


def test_opencv_has_one_thread_inside_and_what_it_had_afterwards(opencv_threads: int) -> None:
    assert opencv_threads > 1
    with one_opencv_thread():
        assert cv2.getNumThreads() == 1
        with one_opencv_thread():
            assert cv2.getNumThreads() == 1
        assert cv2.getNumThreads() == 1
    assert cv2.getNumThreads() == opencv_threads
    with pytest.raises(KeyError), one_opencv_thread():
        raise KeyError
    assert cv2.getNumThreads() == opencv_threads


def test_blocks_that_overlap_restore_what_the_first_one_found(opencv_threads: int) -> None:
    first, second = one_opencv_thread(), one_opencv_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert cv2.getNumThreads() == 1
    second.__exit__(None, None, None)
    assert cv2.getNumThreads() == opencv_threads
