"""One decoding child as its parent sees it: start, exchange one frame for another, end.

Every wait has an end, every length is checked before it is read, and both directions are served
at once, so that two full pipes never wait for each other. Not thread-safe: one caller at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_runtime.errors import EngineError
from edge_runtime.isolation.wire import HEAD_BYTES, Frame, FrameHead, WireError, pack_head

__all__ = ["ChildEndedError", "ChildLateError", "DecodingChild", "child_command"]

_BOOT = (
    "import sys; sys.path[:] = sys.argv[1:]; from edge_runtime.isolation.child import main; main()"
)
# Where libraries are found, of the parent's environment; nothing else of it reaches the child.
_INHERITED = ("LD_LIBRARY_PATH", "LD_PRELOAD")
# One thread, one heap: every further one reserves address space, which is capped.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
_CHUNK_BYTES = 1 << 20
_LAST_WORDS_BYTES = 2000
_END_S = 1.0  # for a child that closed its pipe, or was killed, to be gone


class ChildLateError(Exception):
    """The child did not answer in time."""


class ChildEndedError(Exception):
    """The child is gone; `return_code` as of `subprocess`."""

    def __init__(self, return_code: int) -> None:
        """Say how it ended."""
        ended = f"exit code {return_code}"
        if return_code < 0:
            with contextlib.suppress(ValueError):
                ended = signal.Signals(-return_code).name
        super().__init__(ended)
        self.return_code = return_code


def child_command() -> list[str]:
    """Return the command of a child that finds exactly the modules of this process.

    The interpreter reads neither environment nor site files; the search path is this process's,
    without the entries that depend on a working directory.

    Raises:
        EngineError: Nobody knows which program is the Python interpreter.
    """
    if not sys.executable:
        raise EngineError(
            "a decoding child cannot be started: sys.executable is empty; set it to a Python "
            "interpreter with the same packages"
        )
    root = str(Path(__file__).resolve().parents[2])
    paths = [one for one in sys.path if Path(one).is_absolute()]
    if root not in paths:
        paths.insert(0, root)
    return [sys.executable, "-I", "-S", "-B", "-c", _BOOT, *paths]


class DecodingChild:
    """A child process; `kill` must be called."""

    def __init__(self, command: Sequence[str], first: Frame) -> None:
        """Start `command` and hand it its first frame, which must fit into an empty pipe.

        Raises:
            EngineError: The process cannot be started.
        """
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env=_environment(os.environ),
                start_new_session=True,  # its own group: a terminal's Ctrl-C is the parent's
            )
        except (OSError, ValueError) as error:
            raise EngineError(
                f"a decoding child cannot be started ({error}); close other programs, or screen "
                "without isolation"
            ) from error
        self.started_at = time.perf_counter()
        self.is_ready = False
        self._pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._in, self._out, self._err = (pipe.fileno() for pipe in self._pipes if pipe)
        for number in (self._in, self._out, self._err):
            os.set_blocking(number, False)
        for number in (self._in, self._out):
            with contextlib.suppress(OSError):  # without the right to it, more turns are needed
                fcntl.fcntl(number, fcntl.F_SETPIPE_SZ, _CHUNK_BYTES)
        self._outgoing: list[memoryview] = []
        self._incoming = bytearray()
        self._words = b""
        self._hears_words = True
        self._enqueue(first)
        self._write()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def last_words(self) -> str:
        """The last line that the child wrote to its standard error; empty without one."""
        lines = self._words.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def is_usable(self) -> bool:
        """Whether the child is starting, or lives and says nothing that it was not asked for."""
        if not self.is_ready:
            return True
        if self._process.poll() is not None or self._incoming or self._outgoing:
            return False
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        return not poll.poll(0)

    def exchange(self, request: Frame, *, max_data_bytes: int, give_up_at: float) -> Frame:
        """Send a frame and return the answer.

        Args:
            request: What is sent.
            max_data_bytes: Most data that an answer may have.
            give_up_at: A `time.perf_counter` value in seconds.

        Raises:
            ChildLateError: No whole answer came in time.
            ChildEndedError: The child ended instead.
            WireError: What came is no answer.
        """
        self._enqueue(request)
        return self.hear(max_data_bytes=max_data_bytes, give_up_at=give_up_at)

    def hear(self, *, max_data_bytes: int, give_up_at: float) -> Frame:
        """Return the next frame; what is unfinished when it is too late is kept.

        Raises:
            As `exchange`.
        """
        while True:
            frame = self._whole_frame(max_data_bytes)
            if frame is not None:
                return frame
            self._serve_pipes(self._missing(max_data_bytes), give_up_at)

    def kill(self) -> None:
        """End the child and whatever it may have started; reap it and close its pipes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in self._pipes:
            if pipe is not None:
                pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel holds it; not for us
            self._process.wait(_END_S)

    def _enqueue(self, frame: Frame) -> None:
        parts = (pack_head(frame) + frame.text, frame.data)
        self._outgoing = [memoryview(part) for part in parts if part]

    def _missing(self, max_data_bytes: int) -> int:
        """How many bytes still belong to the frame that is coming in."""
        if len(self._incoming) < HEAD_BYTES:
            return HEAD_BYTES - len(self._incoming)
        head = self._head(max_data_bytes)
        total = HEAD_BYTES + head.num_text_bytes + head.num_data_bytes
        return total - len(self._incoming)

    def _head(self, max_data_bytes: int) -> FrameHead:
        return FrameHead.parse(bytes(self._incoming[:HEAD_BYTES]), max_data_bytes=max_data_bytes)

    def _whole_frame(self, max_data_bytes: int) -> Frame | None:
        if len(self._incoming) < HEAD_BYTES or self._missing(max_data_bytes) > 0:
            return None
        if self._outgoing:
            raise WireError("it answers before it was asked to the end")
        head = self._head(max_data_bytes)
        whole, self._incoming = self._incoming, bytearray()
        text_end = HEAD_BYTES + head.num_text_bytes
        return Frame(
            number=head.number,
            text=bytes(whole[HEAD_BYTES:text_end]),
            data=bytes(whole[text_end:]),
        )

    def _serve_pipes(self, num_wanted: int, give_up_at: float) -> None:
        """Wait until a pipe can be served, and serve it once."""
        left_s = give_up_at - time.perf_counter()
        if left_s <= 0:
            raise ChildLateError
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        if self._hears_words:
            poll.register(self._err, select.POLLIN)
        if self._outgoing:
            poll.register(self._in, select.POLLOUT)
        ready = {number for number, _ in poll.poll(math.ceil(left_s * 1e3))}
        if self._err in ready:
            self._keep_words()
        if self._in in ready:
            self._write()
        if self._out in ready:
            self._read(num_wanted)

    def _write(self) -> None:
        """Hand over what the pipe takes; a child that is gone is found out by reading."""
        try:
            while self._outgoing:
                num_written = os.write(self._in, self._outgoing[0][:_CHUNK_BYTES])
                self._outgoing[0] = self._outgoing[0][num_written:]
                if not self._outgoing[0]:
                    del self._outgoing[0]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._outgoing = []

    def _read(self, num_wanted: int) -> None:
        data = os.read(self._out, min(num_wanted, _CHUNK_BYTES))
        if data:
            self._incoming += data
            return
        self._keep_words()
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise ChildEndedError(self._process.wait(_END_S))
        raise WireError("it closed its end of the pipe")

    def _keep_words(self) -> None:
        try:
            data = os.read(self._err, 1 << 16)
        except BlockingIOError:
            return
        self._words = (self._words + data)[-_LAST_WORDS_BYTES:]
        self._hears_words = bool(data)


def _environment(parent: Mapping[str, str]) -> dict[str, str]:
    return {**{name: parent[name] for name in _INHERITED if name in parent}, **_ENVIRONMENT}
