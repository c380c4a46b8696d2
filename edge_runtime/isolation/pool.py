"""The loader that decodes in child processes: one for each caller at the same time.

A child that ended, was late or gave an answer that cannot be right costs its own picture, which
is then not answered; the next picture gets another child. Nothing is ever decoded in this process
instead.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edge_runtime.errors import (
    DecoderStoppedError,
    EngineBusyError,
    EngineError,
    ImageUnreadableError,
)
from edge_runtime.isolation.answers import Failure, Loaded, Refusal, Sent, input_bytes, read_answer
from edge_runtime.isolation.child import OUT_OF_MEMORY_CODE, ChildSettings, versions
from edge_runtime.isolation.limits import IsolationLimits
from edge_runtime.isolation.process import (
    ChildEndedError,
    ChildLateError,
    DecodingChild,
    child_command,
)
from edge_runtime.isolation.wire import Frame, WireError
from edge_runtime.loading import LoadedPicture, LoadSettings, StageTimer
from edge_runtime.strict_json import canonical_json, dataclass_to_dict

__all__ = ["ChildFailedError", "IsolatedLoader"]

_log = logging.getLogger(__name__)

_LAST_LOOK_S = 0.1  # for what a child has said already to be read


class ChildFailedError(Exception):
    """An error that nobody foresaw ended the work on a picture in the child."""


class IsolatedLoader:
    """A `PictureLoader` whose children decode. `close` must be called."""

    def __init__(
        self,
        settings: LoadSettings,
        limits: IsolationLimits,
        *,
        command: Sequence[str] | None = None,
    ) -> None:
        """Begin to start the first child; `warm_up` waits until it is ready.

        Args:
            settings: What pictures become.
            limits: What one picture may cost.
            command: Program that is started instead of the package's own child.

        Raises:
            EngineError: A process cannot be started.
        """
        self._settings = settings
        self._limits = limits
        self._command = child_command() if command is None else list(command)
        self._owner_pid = os.getpid()
        self._first = Frame(number=0, text=canonical_json(dataclass_to_dict(self._orders())))
        self._numbers = itertools.count(1)
        self._slots = threading.Semaphore(limits.max_children)
        self._lock = threading.Lock()
        self._closed = False
        self._idle = [self._start()]

    @property
    def settings(self) -> LoadSettings:
        """What pictures become."""
        return self._settings

    @property
    def idle_pids(self) -> tuple[int, ...]:
        """The children that wait for a picture, the next to be used last."""
        with self._lock:
            return tuple(child.pid for child in self._idle)

    def load(self, data: bytes, sha256: str, clock: StageTimer) -> LoadedPicture:
        """As `PictureLoader.load`; `preprocess` includes the way to the child and back.

        Raises:
            ImageError: The picture cannot be used.
            DecoderStoppedError: The child did not answer before it ended.
            ChildFailedError: An error that nobody foresaw.
            EngineError: No child can be started, or the loader is closed.
            EngineBusyError: The caller's time is over.
        """
        sent = Sent(
            number=next(self._numbers),
            sha256=sha256,
            num_bytes=len(data),
            settings=self._settings,
        )
        with clock.stage("preprocess"):
            left_s = clock.remaining_s()
            late_at = math.inf if left_s is None else time.perf_counter() + left_s
            with self._slot(late_at):
                child = self._ready_child(late_at)
                answer = self._ask(child, sent, data, late_at)
                self._put_back(child, answer)
        loaded = _require_loaded(answer)
        clock.move_ms(loaded.quality_ms, source="preprocess", target="quality")
        return loaded.picture

    def warm_up(self) -> None:
        """Wait until one child is ready.

        Raises:
            EngineError: No child can be started, or the loader is closed.
        """
        with self._slot(math.inf):
            self._keep(self._ready_child(math.inf))

    def close(self) -> None:
        """End the children; one that decodes ends after its picture. Later loads fail."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        if os.getpid() == self._owner_pid:
            for child in idle:
                child.kill()

    def _orders(self) -> ChildSettings:
        return ChildSettings(
            load=self._settings,
            memory_mb=self._limits.memory_mb,
            cpu_s=math.ceil(self._limits.timeout_s),
            parent_pid=self._owner_pid,
        )

    def _start(self) -> DecodingChild:
        return DecodingChild(self._command, self._first)

    @contextmanager
    def _slot(self, late_at: float) -> Iterator[None]:
        """Hold one of the places for children."""
        wait_s = None if late_at == math.inf else max(0.0, late_at - time.perf_counter())
        if not self._slots.acquire(timeout=wait_s):
            raise EngineBusyError(
                f"all {self._limits.max_children} decoding children are busy; send fewer pictures "
                "at once, or allow more (max_children)"
            )
        try:
            yield
        finally:
            self._slots.release()

    def _ready_child(self, late_at: float) -> DecodingChild:
        """Take an idle child or start one, and wait until it is ready."""
        child = self._take()
        if child.is_ready:
            return child
        # One that was left starting may have been ready for long: it is heard once in any case.
        limit_at = child.started_at + self._limits.start_timeout_s
        limit_at = max(limit_at, time.perf_counter() + _LAST_LOOK_S)
        try:
            with _ended_on_error(child, but=_CallerLateError):
                _hear_ready(child, late_at, limit_at)
        except _CallerLateError:  # it goes on starting, for the next picture
            self._keep(child)
            raise EngineBusyError("the decoding child is still starting; allow more time") from None
        except (ChildLateError, ChildEndedError, WireError) as error:
            raise EngineError(_not_started(child, error, self._limits.start_timeout_s)) from error
        return child

    def _take(self) -> DecodingChild:
        if os.getpid() != self._owner_pid:
            raise EngineError(
                "the decoding children belong to another process; open the screener after the fork"
            )
        while True:
            with self._lock:
                if self._closed:
                    raise EngineError("the screener is closed; open it again")
                child = self._idle.pop() if self._idle else None
            if child is None:
                return self._start()
            if child.is_usable():
                return child
            child.kill()

    def _keep(self, child: DecodingChild) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(child)
                return
        child.kill()

    def _put_back(self, child: DecodingChild, answer: Loaded | Refusal | Failure) -> None:
        if isinstance(answer, Failure):
            child.kill()
        else:
            self._keep(child)

    def _ask(
        self, child: DecodingChild, sent: Sent, data: bytes, late_at: float
    ) -> Loaded | Refusal | Failure:
        """Have one picture decoded; a child that does not answer well is ended."""
        limit_at = time.perf_counter() + self._limits.timeout_s
        try:
            with _ended_on_error(child):
                frame = child.exchange(
                    Frame(number=sent.number, text=b"", data=data),
                    max_data_bytes=input_bytes(self._settings),
                    give_up_at=min(limit_at, late_at),
                )
                return read_answer(frame, sent)
        except ChildLateError as error:
            if late_at <= limit_at:
                raise EngineBusyError("decoding takes longer than the caller waits") from error
            raise DecoderStoppedError(
                f"the picture was not decoded within {self._limits.timeout_s:g} s and its decoder "
                "was stopped; try again, then copy it again from the camera"
            ) from error
        except ChildEndedError as error:
            raise DecoderStoppedError(self._why_ended(error)) from error
        except WireError as error:
            raise ImageUnreadableError(
                f"the decoder's answer cannot be right: {error}; copy the picture again from the "
                "camera"
            ) from error

    def _why_ended(self, error: ChildEndedError) -> str:
        if error.return_code == OUT_OF_MEMORY_CODE:
            return (
                f"decoding the picture needs more than the {self._limits.memory_mb} MB allowed; "
                "export it smaller, or allow more (memory_mb)"
            )
        return (
            f"the decoder did not survive the picture ({error}); copy it again from the camera, "
            "and keep the file for the vendor"
        )


class _CallerLateError(Exception):
    """The caller cannot wait until a child has started."""


@contextmanager
def _ended_on_error(child: DecodingChild, *, but: type[Exception] | None = None) -> Iterator[None]:
    """End the child on any way out but the good one, and but one kind of error."""
    try:
        yield
    except BaseException as error:
        if but is None or not isinstance(error, but):
            child.kill()
        raise


def _hear_ready(child: DecodingChild, late_at: float, limit_at: float) -> None:
    """Wait until the child says that it is ready, and compare its software with ours."""
    try:
        frame = child.hear(max_data_bytes=0, give_up_at=min(late_at, limit_at))
    except ChildLateError:
        if late_at < limit_at:
            raise _CallerLateError from None
        raise
    if frame.number != 0 or frame.text != canonical_json(versions()):
        raise WireError("it runs other software than this process; restart this program")
    child.is_ready = True


def _not_started(child: DecodingChild, error: Exception, limit_s: float) -> str:
    why = f"it was not ready after {limit_s:g} s" if isinstance(error, ChildLateError) else error
    words = f": {child.last_words}" if child.last_words else ""
    return (
        f"a decoding child cannot be started ({why}{words}); run `edge-screen doctor`, and check "
        "that sys.executable is the Python of this installation"
    )


def _require_loaded(answer: Loaded | Refusal | Failure) -> Loaded:
    if isinstance(answer, Loaded):
        return answer
    if isinstance(answer, Refusal):
        raise answer.as_error()
    _log.error("the decoding child failed: %s", answer.error)
    raise ChildFailedError(answer.error)
