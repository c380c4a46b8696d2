"""The owner thread: order, bounds, what crosses to the caller and what must not."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import pytest
from trt_machine import until

from edge_runtime.engines import owner_thread
from edge_runtime.engines.owner_thread import OwnerThread
from edge_runtime.errors import CudaError, EngineBusyError, EngineError


@pytest.fixture
def owner() -> Iterator[OwnerThread]:
    thread = OwnerThread("test", max_waiting=4)
    yield thread
    thread.stop(lambda: None, timeout_s=5.0)


def test_all_work_is_done_by_one_thread_that_is_not_the_caller(owner: OwnerThread) -> None:
    seen = {owner.call(threading.get_ident, timeout_s=5.0) for _ in range(20)}
    assert len(seen) == 1
    assert threading.get_ident() not in seen


def test_calls_are_served_in_the_order_in_which_they_came(owner: OwnerThread) -> None:
    gate, started, order = threading.Event(), threading.Event(), []

    def work(number: int) -> None:
        started.set()
        gate.wait(10.0)
        order.append(number)

    threads = []
    for number in range(4):
        call = partial(owner.call, partial(work, number), timeout_s=30.0)
        threads.append(threading.Thread(target=call))
        threads[-1].start()
        until(lambda n=number: started.is_set() and owner._queue.qsize() == n)
    gate.set()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3]


def test_an_error_of_the_tree_keeps_its_class_and_text_and_nothing_else(
    owner: OwnerThread,
) -> None:
    class Resource:
        pass

    alive: list[weakref.ref[Resource]] = []

    def fail() -> None:
        resource = Resource()
        alive.append(weakref.ref(resource))
        raise CudaError("cuMemAlloc failed; remedy")

    with pytest.raises(CudaError, match="cuMemAlloc failed; remedy") as caught:
        owner.call(fail, timeout_s=5.0)
    assert alive[0]() is None  # though the error is still held
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_any_other_error_is_an_engine_error_and_the_thread_lives_on(
    owner: OwnerThread, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(EngineError, match=r"^ZeroDivisionError: .*; report this"):
        owner.call(lambda: 1 / 0, timeout_s=5.0)
    assert "nobody foresaw" in caplog.text
    assert owner.call(lambda: 7, timeout_s=5.0) == 7


def test_what_was_handed_in_is_let_go(owner: OwnerThread) -> None:
    class Picture:
        pass

    picture = Picture()
    seen = weakref.ref(picture)
    owner.call(partial(id, picture), timeout_s=5.0)
    del picture
    gc.collect()
    assert seen() is None


def test_what_waits_at_the_end_is_finished_first() -> None:
    owner, gate, done = OwnerThread("test", max_waiting=8), threading.Event(), []

    def work(number: int) -> None:
        gate.wait(10.0)
        done.append(number)

    calls = [partial(owner.call, partial(work, n), timeout_s=30.0) for n in range(3)]
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    until(lambda: owner._queue.qsize() == 2)
    threading.Timer(0.02, gate.set).start()
    owner.stop(lambda: done.append("last"), timeout_s=30.0)
    for thread in threads:
        thread.join()
    assert done[-1] == "last"
    assert len(done) == 4
    with pytest.raises(EngineError, match="closed"):
        owner.call(lambda: None, timeout_s=1.0)


def test_a_failure_of_the_last_work_is_raised_after_the_thread_has_ended() -> None:
    def fail() -> None:
        raise CudaError("cudaFree failed; remedy")

    owner = OwnerThread("test", max_waiting=1)
    with pytest.raises(CudaError, match="cudaFree"):
        owner.stop(fail, timeout_s=5.0)
    assert not owner._thread.is_alive()
    owner.stop(fail, timeout_s=5.0)  # nothing more happens


def test_stopping_from_the_thread_itself_does_not_wait_for_itself() -> None:
    owner, done = OwnerThread("test", max_waiting=1), []
    owner.call(lambda: owner.stop(lambda: done.append("last"), timeout_s=5.0), timeout_s=5.0)
    owner._thread.join(5.0)
    assert done == ["last"]


def test_idle_work_stops_at_its_first_failure() -> None:
    calls: list[int] = []

    def idle() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise CudaError("the GPU is gone; remedy")

    owner = OwnerThread("test", max_waiting=1, idle_s=0.01, on_idle=idle)
    until(lambda: owner.failure)
    time.sleep(0.05)
    assert len(calls) == 2
    assert owner.failure == "the GPU is gone; remedy"
    owner.stop(lambda: None, timeout_s=5.0)


def test_a_busy_answer_does_not_stop_later_ones(owner: OwnerThread) -> None:
    with pytest.raises(EngineBusyError, match=r"within 0\.02 s"):
        owner.call(lambda: time.sleep(0.1), timeout_s=0.02)
    assert owner.call(lambda: "later", timeout_s=5.0) == "later"


def test_a_job_that_comes_too_late_is_no_answer(
    owner: OwnerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner finds it late while its caller, who began to wait later, waits still."""
    clock = iter((0.0, 100.0))
    monkeypatch.setattr(owner_thread, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    done: list[int] = []
    with pytest.raises(EngineBusyError, match="within 60 s"):
        owner.call(lambda: done.append(1), timeout_s=60.0)
    assert done == []
    monkeypatch.undo()
    assert owner.call(lambda: "later", timeout_s=5.0) == "later"
