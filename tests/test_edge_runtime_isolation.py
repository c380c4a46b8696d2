"""A decoding child may do what it likes: its parent answers, survives and leaks nothing."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fundus_factory import centred_fundus, exif_block, jpeg_bytes, png_bytes, with_exif
from isolation_factory import (
    READY,
    SETTINGS,
    child_pids,
    error_text,
    fake_child,
    load,
    num_open_files,
    state_of,
)

from edge_runtime.errors import (
    ConfigError,
    DecoderStoppedError,
    EngineError,
    ImageError,
    ImageUnreadableError,
)
from edge_runtime.eye_pipeline import StageClock
from edge_runtime.isolation import IsolatedLoader, IsolationLimits
from edge_runtime.isolation.pool import ChildFailedError
from edge_runtime.isolation.wire import Frame
from edge_runtime.loading import InProcessLoader, LoadedPicture
from edge_runtime.preprocess import PreprocessSpec

ROOT = Path(__file__).resolve().parent.parent
GOOD = jpeg_bytes(centred_fundus(400))
LIMITS = IsolationLimits(timeout_s=20.0)
Open = Callable[..., IsolatedLoader]
IN_PROCESS = InProcessLoader(SETTINGS)


@pytest.fixture(scope="module")
def isolated() -> Iterator[IsolatedLoader]:
    """A loader with the package's own children, shared by the tests that harm none of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLINIC_SECRET", "patient-4711")
        patch.setenv("PYTHONPATH", "/nonexistent")
        patch.setenv("LD_LIBRARY_PATH", "/nonexistent/lib")
        loader = IsolatedLoader(SETTINGS, LIMITS)
    yield loader
    loader.close()


@pytest.fixture
def real_loader() -> Iterator[Open]:
    """Opens loaders with the package's own children, and closes them."""
    with ExitStack() as stack:
        yield lambda **limits: _opened(stack, None, {"timeout_s": 20.0, **limits})


@pytest.fixture
def fake_loader() -> Iterator[Open]:
    """Opens loaders with children that behave as told, and closes them."""
    with ExitStack() as stack:
        yield lambda behaviour, *, takes_picture=True, **limits: _opened(
            stack, fake_child(behaviour, takes_picture=takes_picture), limits
        )


def _opened(
    stack: ExitStack, command: list[str] | None, limits: dict[str, float]
) -> IsolatedLoader:
    loader = IsolatedLoader(SETTINGS, IsolationLimits(**limits), command=command)
    stack.callback(loader.close)
    return loader


def require_equal(first: LoadedPicture, second: LoadedPicture) -> None:
    """Every field of both, whatever fields there are."""
    for mine, theirs in (
        (first.decoded, second.decoded),
        (first.preprocessed, second.preprocessed),
        (first.report, second.report),
    ):
        for field in fields(mine):
            a, b = getattr(mine, field.name), getattr(theirs, field.name)
            assert type(a) is type(b)
            if isinstance(a, np.ndarray):
                assert a.dtype == b.dtype
                assert np.array_equal(a, b)
            else:
                assert a == b, field.name


def outcome(loader: InProcessLoader | IsolatedLoader, data: bytes) -> LoadedPicture | str:
    try:
        return load(loader, data)
    except ImageError as error:
        return f"{type(error).__name__}: {error}"


BLANK = np.full((200, 200, 3), (160, 60, 30), np.uint8)
USABLE = {
    "jpeg": GOOD,
    "progressive": jpeg_bytes(centred_fundus(300, seed=1), progressive=True),
    "png": png_bytes(centred_fundus(200, seed=2)),
    "turned": with_exif(GOOD, exif_block(6)),
    "dark": png_bytes(centred_fundus(200) // 12),
    "small": png_bytes(centred_fundus(100, fill=0.7)),
    "enlarged": png_bytes(centred_fundus(80, fill=0.85)),
}
REFUSED = {
    "empty": b"",
    "no image": b"%PDF-1.7 not a picture",
    "cut": GOOD[:-400],
    "one channel": png_bytes(centred_fundus(100)[..., 0]),
    "no field": png_bytes(BLANK),
}


@pytest.mark.parametrize("name", USABLE)
def test_a_usable_picture_gives_the_same_as_in_this_process(
    isolated: IsolatedLoader, name: str
) -> None:
    here, there = load(IN_PROCESS, USABLE[name]), load(isolated, USABLE[name])
    require_equal(here, there)
    assert there.decoded.image_hwc.size == 0
    there.preprocessed.image_hwc[0] = 1  # a buffer of its own, not a view of what came


def test_the_usable_pictures_differ_in_what_is_compared() -> None:
    pictures = [load(IN_PROCESS, data) for data in USABLE.values()]
    assert {picture.report.gradable for picture in pictures} == {True, False}
    assert {picture.decoded.format for picture in pictures} == {"jpeg", "png"}
    assert any(picture.decoded.warnings for picture in pictures)
    assert any(picture.preprocessed.warnings for picture in pictures)
    assert any(picture.decoded.reduction > 1 for picture in pictures)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_picture_is_refused_with_the_same_error(
    isolated: IsolatedLoader, name: str
) -> None:
    there = outcome(isolated, REFUSED[name])
    assert isinstance(there, str)
    assert there == outcome(IN_PROCESS, REFUSED[name])


def test_the_stages_add_up(isolated: IsolatedLoader) -> None:
    clock = StageClock()
    isolated.load(GOOD, hashlib.sha256(GOOD).hexdigest(), clock)
    timings_ms = clock.timings_ms()
    assert set(timings_ms) == {"preprocess", "quality", "total"}
    assert 0 < timings_ms["quality"] < timings_ms["total"]
    assert 0 < timings_ms["preprocess"] < timings_ms["total"]
    assert timings_ms["preprocess"] + timings_ms["quality"] <= timings_ms["total"] + 1e-6


def test_a_picture_larger_than_the_pipes_goes_through_and_comes_back(
    isolated: IsolatedLoader,
) -> None:
    noise = np.random.default_rng(0).integers(0, 30, (1200, 1200, 3)).astype(np.uint8)
    data = png_bytes(np.minimum(centred_fundus(1200), 220) + noise)
    assert len(data) > 2_000_000
    require_equal(load(isolated, data), load(IN_PROCESS, data))


def test_a_refusal_does_not_cost_the_child(isolated: IsolatedLoader) -> None:
    isolated.warm_up()
    before = isolated.idle_pids[-1]
    for data in REFUSED.values():
        outcome(isolated, data)
    assert isolated.idle_pids[-1] == before


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("sys.exit(3)", "did not survive.*exit code 3"),
        ("sys.exit(0)", "did not survive.*exit code 0"),
        ("sys.exit(12)", "needs more than the 600 MB allowed"),
        ("os.kill(os.getpid(), 9)", "did not survive.*SIGKILL"),
        ("os.kill(os.getpid(), 11)", "did not survive.*SIGSEGV"),
        ("os.abort()", "did not survive.*SIGABRT"),
        ("os.close(1); time.sleep(60)", "closed its end of the pipe"),
        ("os.write(1, b'x' * 20)", "does not begin a frame"),
        ("os.write(1, os.urandom(4096)); time.sleep(60)", "does not begin a frame"),
        ("os.write(1, b'ESD1' + b'\\xff' * 16)", "claims 4294967295 bytes of text"),
        (
            "os.write(1, struct.pack('<4sQII', b'ESD1', number, 2, 1 << 20))",
            "claims 2 bytes of text and 1048576 of data",
        ),
        ("os.write(1, struct.pack('<4sQII', b'ESD1', number, 50, 0)); sys.exit(0)", "exit code 0"),
        ("send(number, b'{}')", "sha256 is missing"),
        ("send(number, b'[' * 50000)", "not valid JSON"),
        ("send(number, b'\\xff\\xfe')", "not valid JSON"),
        ("send(number + 1, b'{}')", "it has number"),
        ("send(0, b'{}')", "it has number"),
    ],
)
def test_a_child_that_misbehaves_costs_its_picture(
    behaviour: str, message: str, fake_loader: Open
) -> None:
    loader = fake_loader(behaviour)
    with pytest.raises(ImageUnreadableError, match=message) as raised:
        load(loader, GOOD)
    ended = ("did not survive", "needs more than", "exit code")
    assert isinstance(raised.value, DecoderStoppedError) == message.startswith(ended)
    assert loader.idle_pids == ()


@pytest.mark.parametrize(
    "behaviour",
    [
        "time.sleep(60)",
        "os.write(1, b'ESD1'); time.sleep(60)",
        "os.write(1, struct.pack('<4sQII', b'ESD1', number, 50, 0)); time.sleep(60)",
        "while True: os.write(2, b'noise ' * 1000)",
    ],
)
def test_a_silent_child_is_stopped_in_time(behaviour: str, fake_loader: Open) -> None:
    loader = fake_loader(behaviour, timeout_s=0.4)
    loader.warm_up()
    pid = loader.idle_pids[0]
    started = time.perf_counter()
    with pytest.raises(DecoderStoppedError, match=r"not decoded within 0\.4 s.*copy it again"):
        load(loader, GOOD)
    assert 0.4 <= time.perf_counter() - started < 3.0
    assert state_of(pid) is None


def test_a_child_that_does_not_take_the_picture_never_blocks_the_parent(fake_loader: Open) -> None:
    loader = fake_loader("time.sleep(60)", takes_picture=False, timeout_s=0.4)
    with pytest.raises(ImageUnreadableError, match="not decoded within"):
        load(loader, bytes(5_000_000))


def test_an_answer_before_the_whole_picture_is_not_believed(fake_loader: Open) -> None:
    loader = fake_loader("send(number, b'{}'); time.sleep(60)", takes_picture=False)
    with pytest.raises(ImageUnreadableError, match="before it was asked to the end"):
        load(loader, bytes(5_000_000))


def test_a_child_that_speaks_unasked_is_replaced_before_the_next_picture(fake_loader: Open) -> None:
    text = error_text("ImageUnreadableError", "bad")
    refusal = f"send(number, {text}); send(number + 1, {text}); time.sleep(0.1)"
    loader = fake_loader(refusal)
    with pytest.raises(ImageUnreadableError, match=r"^bad$"):
        load(loader, GOOD)
    first = loader.idle_pids[0]
    time.sleep(0.2)
    with pytest.raises(ImageUnreadableError, match=r"^bad$"):
        load(loader, GOOD)
    assert loader.idle_pids[0] != first


def test_a_talkative_child_is_heard_to_the_end(fake_loader: Open) -> None:
    text = error_text("ImageUnreadableError", "bad")
    loader = fake_loader(f"os.write(2, b'warning ' * 50000); send(number, {text})", timeout_s=5.0)
    with pytest.raises(ImageUnreadableError, match=r"^bad$"):
        load(loader, GOOD)


def test_an_unforeseen_error_in_the_child_is_an_internal_one(fake_loader: Open) -> None:
    loader = fake_loader(f"send(number, {error_text('KeyError', None)})")
    with pytest.raises(ChildFailedError, match="KeyError"):
        load(loader, GOOD)
    assert loader.idle_pids == ()


def test_a_child_killed_while_it_decodes_costs_only_that_picture(real_loader: Open) -> None:
    loader = real_loader()
    loader.warm_up()
    pid = loader.idle_pids[0]
    os.kill(pid, signal.SIGSTOP)  # it is in the middle of the picture for as long as we like
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(ImageUnreadableError, match=r"did not survive the picture \(SIGKILL\)"):
        load(loader, GOOD)
    require_equal(load(loader, GOOD), load(IN_PROCESS, GOOD))
    assert loader.idle_pids[0] != pid


def test_a_child_that_died_between_pictures_costs_none(real_loader: Open) -> None:
    loader = real_loader()
    loader.warm_up()
    pid = loader.idle_pids[0]
    os.kill(pid, signal.SIGKILL)
    while state_of(pid) != "Z":
        time.sleep(0.01)
    require_equal(load(loader, GOOD), load(IN_PROCESS, GOOD))
    assert state_of(pid) is None


def test_the_callers_deadline_ends_the_wait(fake_loader: Open) -> None:
    loader = fake_loader("time.sleep(60)")
    loader.warm_up()
    started = time.perf_counter()
    with pytest.raises(Exception, match="later than the caller allowed"):
        load(loader, GOOD, deadline_s=0.3)
    assert time.perf_counter() - started < 3.0
    assert loader.idle_pids == ()


def test_a_child_goes_on_starting_when_the_caller_cannot_wait(real_loader: Open) -> None:
    loader = real_loader()
    pid = loader.idle_pids[0]
    with pytest.raises(Exception, match="later than the caller allowed"):
        load(loader, GOOD, deadline_s=0.005)
    load(loader, GOOD)
    assert loader.idle_pids[0] == pid


@pytest.mark.slow
def test_a_child_left_starting_is_heard_however_late(real_loader: Open) -> None:
    """With deadlines shorter than a start, isolation would else never come to work again."""
    loader = real_loader(start_timeout_s=2.0)
    pid = loader.idle_pids[0]
    time.sleep(2.1)
    load(loader, GOOD)
    assert loader.idle_pids[0] == pid


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_memory_bomb_costs_only_itself(kind: str, real_loader: Open) -> None:
    """20 megapixels are within the limits of decoding, and far over this child's memory."""
    plain = np.zeros((4000, 5000, 3), np.uint8)
    bomb = png_bytes(plain) if kind == "png" else jpeg_bytes(plain, progressive=True)
    assert len(bomb) < 1_000_000
    loader = real_loader(memory_mb=30, timeout_s=30.0)
    with pytest.raises(DecoderStoppedError, match="more than the 30 MB allowed"):
        load(loader, bomb)
    require_equal(load(loader, GOOD), load(IN_PROCESS, GOOD))


@pytest.mark.slow
def test_the_largest_allowed_picture_fits_into_the_default_memory() -> None:
    """40 megapixels, decoded whole, 16 bits a coefficient, turned: nothing needs more."""
    pixels = np.zeros((5000, 8000, 3), np.uint8)
    cv2.circle(pixels, (4000, 2500), 2300, (190, 95, 45), -1)
    picture = with_exif(jpeg_bytes(pixels, progressive=True), exif_block(6))
    settings = replace(SETTINGS, spec=PreprocessSpec(size_px=4096))
    loader = IsolatedLoader(settings, IsolationLimits(timeout_s=120.0))
    try:
        assert load(loader, picture).decoded.full_size_px == (8000, 5000)
    finally:
        loader.close()


def test_a_file_larger_than_the_memory_is_named_as_such(real_loader: Open) -> None:
    loader = real_loader(memory_mb=20)
    with pytest.raises(ImageUnreadableError, match=r"more than the 20 MB allowed.*memory_mb"):
        load(loader, bytes(50_000_000))


def test_eight_threads_on_three_children_get_their_own_pictures(real_loader: Open) -> None:
    pictures = [jpeg_bytes(centred_fundus(200 + 8 * n, seed=n)) for n in range(12)]
    expected = [load(IN_PROCESS, data) for data in pictures]
    loader = real_loader(max_children=3, timeout_s=60.0)
    turns = [n % len(pictures) for n in range(96)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: load(loader, pictures[n]), turns))
    for turn, answer in zip(turns, answers, strict=True):
        require_equal(answer, expected[turn])
    assert 1 <= len(loader.idle_pids) <= 3


def test_children_do_not_die_with_the_thread_that_started_them(real_loader: Open) -> None:
    loader = real_loader()
    loader.warm_up()
    os.kill(loader.idle_pids[0], signal.SIGKILL)
    while state_of(loader.idle_pids[0]) != "Z":
        time.sleep(0.01)
    thread = threading.Thread(target=loader.warm_up)
    thread.start()
    thread.join()
    time.sleep(0.1)
    pid = loader.idle_pids[0]
    load(loader, GOOD)
    assert loader.idle_pids[0] == pid


@pytest.mark.parametrize("num_deaths", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_deaths_leave_no_zombie_and_no_open_file(num_deaths: int, fake_loader: Open) -> None:
    loader = fake_loader("os.kill(os.getpid(), 9)")
    loader.warm_up()
    processes, files = child_pids(), num_open_files()
    for _ in range(num_deaths):
        with pytest.raises(ImageUnreadableError, match="SIGKILL"):
            load(loader, GOOD)
    loader.warm_up()
    assert len(child_pids()) == len(processes)
    assert num_open_files() == files
    loader.close()
    assert len(child_pids()) == len(processes) - 1
    assert num_open_files() == files - 3


def test_a_closed_loader_says_so_and_has_no_children(real_loader: Open) -> None:
    before = child_pids()
    loader = real_loader()
    assert len(child_pids()) == len(before) + 1
    loader.close()
    loader.close()
    assert child_pids() == before
    with pytest.raises(EngineError, match="closed"):
        load(loader, GOOD)
    with pytest.raises(EngineError, match="closed"):
        loader.warm_up()


def test_closing_while_a_child_decodes_ends_it_afterwards(fake_loader: Open) -> None:
    before = child_pids()
    loader = fake_loader("time.sleep(0.5); os.write(1, b'x' * 20)")
    loader.warm_up()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(load, loader, GOOD)
        time.sleep(0.2)
        loader.close()
        assert isinstance(answer.exception(), ImageUnreadableError)
    assert child_pids() == before


def test_a_loader_is_not_shared_with_a_forked_process(
    isolated: IsolatedLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "_owner_pid", os.getpid() + 1)
    with pytest.raises(EngineError, match="open the screener after the fork"):
        load(isolated, GOOD)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([sys.executable, "-c", "raise SystemExit('no numpy here')"], "exit code 1: no numpy here"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], r"not ready after 1 s"),
        (["/bin/echo", "hello, this is no frame"], "does not begin a frame"),
        (["/bin/true"], "exit code 0"),
        (fake_child("", ready=Frame(number=0, text=b'{"cv2":"0"}')), "other software"),
        (fake_child("", ready=Frame(number=7, text=READY.text)), "other software"),
        (fake_child("", ready=Frame(number=0, text=READY.text, data=b"x")), "1 of data"),
    ],
)
def test_a_child_that_cannot_start_is_an_error_of_the_engine(
    command: list[str], message: str
) -> None:
    loader = IsolatedLoader(SETTINGS, IsolationLimits(start_timeout_s=1.0), command=command)
    with pytest.raises(EngineError, match=message):
        loader.warm_up()
    with pytest.raises(EngineError, match=message):  # and the next one is tried, not trusted
        load(loader, GOOD)


def test_a_program_that_is_not_there_is_an_error_of_the_engine() -> None:
    with pytest.raises(EngineError, match="cannot be started"):
        IsolatedLoader(SETTINGS, LIMITS, command=["/nonexistent/python"])


def test_an_unknown_interpreter_is_an_error_of_the_engine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(EngineError, match=r"sys\.executable is empty"):
        IsolatedLoader(SETTINGS, LIMITS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory_mb", 0),
        ("memory_mb", 1.5),
        ("max_children", True),
        ("timeout_s", 0),
        ("timeout_s", float("nan")),
        ("timeout_s", float("inf")),
        ("start_timeout_s", -1.0),
        ("start_timeout_s", "10"),
    ],
)
def test_limits_that_limit_nothing_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        IsolationLimits(**{name: value})


def test_the_child_is_confined(isolated: IsolatedLoader) -> None:
    isolated.warm_up()
    pid = isolated.idle_pids[-1]
    text = Path(f"/proc/{pid}/limits").read_text()
    soft = {line[:26].strip(): line[26:47].strip() for line in text.splitlines()[1:]}
    assert soft["Max file size"] == soft["Max core file size"] == soft["Max processes"] == "0"
    assert soft["Max open files"] == "16"
    assert 600_000_000 < int(soft["Max address space"]) < 2_000_000_000
    status = Path(f"/proc/{pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    load(isolated, GOOD)
    text = Path(f"/proc/{isolated.idle_pids[-1]}/limits").read_text()
    (cpu,) = (line[26:47].strip() for line in text.splitlines() if line.startswith("Max cpu"))
    assert 20 <= int(cpu) < 30


def test_the_child_sees_nothing_of_its_parents_environment_but_library_paths(
    isolated: IsolatedLoader,
) -> None:
    isolated.warm_up()
    pid = isolated.idle_pids[-1]
    seen = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"OPENBLAS_NUM_THREADS=1" in seen
    assert b"LD_LIBRARY_PATH=/nonexistent/lib" in seen
    assert b"4711" not in seen
    assert b"PYTHONPATH" not in seen
    assert os.getpgid(pid) != os.getpgid(0)


ORPHAN = """
import os, signal, sys, time
sys.path[:0] = {path!r}
from isolation_factory import SETTINGS
from edge_runtime.isolation import IsolatedLoader, IsolationLimits
loader = IsolatedLoader(SETTINGS, IsolationLimits())
loader.warm_up()
if {forks}:
    if os.fork() == 0:  # a third process that inherits the pipe, and so keeps it open
        os.close(1)
        time.sleep(30)
        os._exit(0)
print(loader.idle_pids[0], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("forks", "within_s"), [(False, 3.0), pytest.param(True, 15.0, marks=pytest.mark.slow)]
)
def test_no_child_outlives_its_parent(forks: bool, within_s: float) -> None:
    program = ORPHAN.format(path=[str(ROOT), str(ROOT / "tests")], forks=forks)
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    pid, until = int(done.stdout), time.monotonic() + within_s
    while state_of(pid) not in (None, "Z"):
        assert time.monotonic() < until, "the child lives on"
        time.sleep(0.05)
