"""Many examinations and many threads: the results of one after the other, and none exchanged."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import pytest
from bundle_factory import BuiltBundle, build_bundle, fundus_png
from screener_factory import GOOD, OTHER, FakeEngine

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.errors import ConfigError
from edge_runtime.examination import Examination
from edge_runtime.eye_pipeline import EyePipeline
from edge_runtime.preprocess import load_for_model
from edge_runtime.result import Decision, FieldResult, ScreeningResult
from edge_runtime.screener import Screener
from edge_runtime.warmup_picture import warmup_jpeg

NUM_SHORT, NUM_LONG = 16, 1000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    folder = tmp_path_factory.mktemp("batch") / "bundle"
    return build_bundle(folder, gradability_threshold=0.1)


@pytest.fixture(scope="module")
def bundle(built: BuiltBundle) -> Bundle:
    return read_bundle(built.folder, trusted_keys=built.trusted_keys)


@pytest.fixture
def screener(built: BuiltBundle) -> Iterator[Screener]:
    with Screener.open(built.folder, trusted_keys=built.trusted_keys) as opened:
        yield opened


def pictures(num: int) -> list[bytes]:
    """So many small photographs, each another one."""
    return [fundus_png(side_px=80, seed=seed) for seed in range(num)]


def answer(result: ScreeningResult) -> tuple[object, ...]:
    """All of a result but its times."""
    eyes = [
        (eye.eye, eye.disposition, [(f.image_sha256, f.disposition, f.labels, f.quality.reasons,
          f.quality.gradable_probability, f.error) for f in eye.fields])
        for eye in result.eyes
    ]  # fmt: skip
    return (result.examination_id, result.disposition, eyes, result.warnings)


def check_identities(screener: Screener, *, num_threads: int, num_each: int) -> None:
    """Every thread screens pictures of its own; each answer must be that of its picture alone."""
    given = pictures(num_each)
    alone = [answer(screener.screen(Examination.single(d, examination_id="x"))) for d in given]
    hashes = [hashlib.sha256(data).hexdigest() for data in given]
    assert len({str(one) for one in alone}) == num_each  # or an exchange could not be seen
    start = threading.Barrier(num_threads)

    def one_thread(offset: int) -> int:
        start.wait()
        for k in range(num_each):
            index = (k + offset * 7) % num_each
            result = screener.screen(Examination.single(given[index], examination_id="x"))
            assert result.eyes[0].fields[0].image_sha256 == hashes[index]
            assert answer(result) == alone[index]
        return num_each

    with ThreadPoolExecutor(num_threads) as pool:
        assert sum(pool.map(one_thread, range(num_threads))) == num_threads * num_each


def test_eight_threads_exchange_no_identity(screener: Screener) -> None:
    check_identities(screener, num_threads=8, num_each=NUM_SHORT)


@pytest.mark.slow
def test_eight_threads_exchange_no_identity_in_a_thousand_pictures_each(screener: Screener) -> None:
    check_identities(screener, num_threads=8, num_each=NUM_LONG)


def check_deterministic(built: BuiltBundle, *, num: int) -> None:
    """Three runs, one and two threads outside and inside of a run: equal to the last bit."""
    given, seen = pictures(num), set()
    for inside in (1, 2):
        with Screener.open(
            built.folder, trusted_keys=built.trusted_keys, num_threads=inside
        ) as screener:
            for _, outside in itertools.product(range(3), (1, 2)):
                results = screener.screen_batch(given, num_threads=outside)
                seen.add(str([answer(result) for result in results]))
    assert len(seen) == 1


def test_three_runs_with_one_and_two_threads_are_equal(built: BuiltBundle) -> None:
    check_deterministic(built, num=NUM_SHORT)


@pytest.mark.slow
def test_three_runs_of_a_thousand_pictures_are_equal(built: BuiltBundle) -> None:
    check_deterministic(built, num=NUM_LONG)


@pytest.mark.parametrize("num_threads", [None, 1, 2, 8])
def test_a_batch_gives_what_single_calls_give(
    screener: Screener, tmp_path: Path, num_threads: int | None
) -> None:
    path = tmp_path / "eye.png"
    path.write_bytes(GOOD)
    given: list[Examination | bytes | Path] = [
        path,
        b"no picture",
        Path("/nonexistent/eye.jpg"),
        Examination.both(od=GOOD, os=OTHER, examination_id="visit-7"),
        Examination.both(od=GOOD, os=GOOD),
        Examination.single([GOOD, None], eye="OS"),
        *pictures(12),
    ]
    alone = [answer(screener.screen(one)) for one in given]
    together = [answer(one) for one in screener.screen_batch(given, num_threads=num_threads)]
    assert together == alone


def test_evidence_is_kept_when_asked_for(screener: Screener) -> None:
    for asked in (False, True):
        for result in screener.screen_batch([GOOD, OTHER], evidence=asked):
            assert (result.eyes[0].fields[0].evidence is not None) == asked


def test_an_iterator_over_a_folder_is_not_held_in_memory(screener: Screener) -> None:
    taken = 0

    def examinations() -> Iterator[bytes]:
        nonlocal taken
        for data in pictures(20):
            taken += 1
            yield data

    for num_given, _ in enumerate(screener.screen_batch(examinations(), num_threads=2)):
        assert taken - num_given <= 4
    assert taken == 20


def test_the_deadline_is_of_one_examination_and_not_of_the_batch(bundle: Bundle) -> None:
    screener = Screener(bundle, FakeEngine(before=lambda: time.sleep(0.1)))
    given = pictures(12)
    started = time.perf_counter()
    results = list(screener.screen_batch(given, num_threads=1, deadline_ms=1000.0))
    assert time.perf_counter() - started > 1.0  # longer than one of them may take
    assert [one.disposition for one in results] == [Decision.NO_REFER] * 12
    screener = Screener(bundle, FakeEngine(before=lambda: time.sleep(0.15)))
    for late in screener.screen_batch(given[:3], num_threads=2, deadline_ms=100.0):
        assert late.eyes[0].reasons == ("deadline exceeded",)


def test_an_error_that_nobody_foresaw_loses_one_examination_and_no_other(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = pictures(6)
    healthy = EyePipeline.screen

    def broken(self: EyePipeline, eye: object, **how: object) -> tuple[FieldResult, tuple[str]]:
        if getattr(eye, "source", None) == given[2]:
            raise RuntimeError("/secret/path")
        return healthy(self, eye, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(EyePipeline, "screen", broken)
    screener = Screener(bundle, FakeEngine())
    results = list(screener.screen_batch(given, num_threads=2))
    assert [one.disposition is Decision.NO_REFER for one in results] == [
        index != 2 for index in range(6)
    ]
    assert results[2].eyes[0].reasons == ("internal error",)
    assert results[2].eyes[0].fields[0].error == "RuntimeError"
    assert "/secret" not in results[2].to_json()
    both = screener.screen(Examination.both(od=given[0], os=given[2], examination_id="v"))
    assert both.disposition is Decision.UNGRADABLE
    assert [eye.eye for eye in both.eyes] == ["OD", "OS"]
    assert both.examination_id == "v"


def test_what_is_no_examination_is_raised_after_the_results_before_it(screener: Screener) -> None:
    results = screener.screen_batch([GOOD, OTHER, "eye.jpg"])  # type: ignore[list-item]
    assert [next(results).decided for _ in range(2)] == [True, True]
    with pytest.raises(TypeError, match="source is str"):
        next(results)


def test_wrong_arguments_are_refused_when_the_batch_is_called(bundle: Bundle) -> None:
    screener = Screener(bundle, FakeEngine())
    for num_threads in (0, -1, 65):
        with pytest.raises(ConfigError, match="num_threads"):
            screener.screen_batch([GOOD], num_threads=num_threads)
    with pytest.raises(ConfigError, match="deadline_ms"):
        screener.screen_batch([GOOD], deadline_ms=0.0)


def test_an_engine_that_refuses_callers_gets_no_more_than_it_takes(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.screener.available_cpus", lambda: 16)
    running, most, lock = 0, 0, threading.Lock()

    def enter() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    engine = FakeEngine(before=enter)
    engine.max_callers = 2
    screener = Screener(bundle, engine)
    assert all(one.decided for one in screener.screen_batch(pictures(8)))
    assert most == 2
    with pytest.raises(ConfigError, match="use 1 to 2 with this engine"):
        screener.screen_batch([GOOD], num_threads=3)


def test_nothing_of_the_process_is_changed(screener: Screener) -> None:
    before = cv2.getNumThreads()
    inside = {cv2.getNumThreads() for _ in screener.screen_batch([GOOD, OTHER] * 3)}
    assert inside == {before} == {cv2.getNumThreads()}


def test_closing_while_others_screen_is_never_a_crash(built: BuiltBundle) -> None:
    for wait_s in (0.0, 0.005, 0.02):
        screener = Screener.open(built.folder, trusted_keys=built.trusted_keys)
        expected = answer(screener.screen(GOOD))
        results: list[ScreeningResult] = []

        def many(screener: Screener = screener, into: list[ScreeningResult] = results) -> None:
            into.extend(screener.screen(GOOD) for _ in range(12))

        threads = [threading.Thread(target=many) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(wait_s)
        screener.close()
        for thread in threads:
            thread.join()
        results.append(screener.screen(GOOD))
        assert len(results) == 4 * 12 + 1
        closed = [one for one in results if answer(one) != expected]
        assert closed[-1] is results[-1]
        for one in closed:
            assert one.eyes[0].reasons == ("engine error",)
            assert "closed" in str(one.eyes[0].fields[0].error)


def test_a_batch_on_a_closed_screener_is_ungradable(built: BuiltBundle) -> None:
    screener = Screener.open(built.folder, trusted_keys=built.trusted_keys)
    results = screener.screen_batch([GOOD] * 6, num_threads=1)
    first = next(results)
    screener.close()
    rest = list(results)
    assert first.decided
    assert len(rest) == 5
    assert rest[-1].eyes[0].reasons == ("engine error",)


def test_warming_up_takes_the_way_of_a_patient(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[bytes] = []

    def load(data: bytes, *more: object, **how: object) -> object:
        loaded.append(data)
        return load_for_model(data, *more, **how)  # type: ignore[arg-type]

    monkeypatch.setattr("edge_runtime.loading.load_for_model", load)
    engine = FakeEngine()
    Screener(bundle, engine).warmup(2)
    size_px = bundle.manifest.preprocess_spec().size_px
    assert loaded == [warmup_jpeg(size_px)]
    assert engine.num_runs == 3
