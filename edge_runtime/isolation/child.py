"""The program of a decoding child: settings once, then one picture in, one small answer out.

Started by `edge_runtime.isolation.process`. Ends when its parent closes the pipe or is gone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import cv2
import numpy as np
import simplejpeg

from edge_runtime import __version__
from edge_runtime.errors import ImageError
from edge_runtime.isolation.answers import pack_failure, pack_loaded, pack_refusal
from edge_runtime.isolation.confine import allow_cpu_s, confine
from edge_runtime.isolation.wire import HEAD_BYTES, Frame, FrameHead, pack_head
from edge_runtime.loading import LoadSettings, load_picture
from edge_runtime.strict_json import canonical_json, parse_json_object, read_dataclass

__all__ = ["OUT_OF_MEMORY_CODE", "ChildSettings", "main", "versions"]

OUT_OF_MEMORY_CODE = errno.ENOMEM  # what the child ends with

_PARENT_CHECK_MS = 5000  # a pipe that a third process inherited stays open without its parent
_WARM_UP_PX = 256


@dataclass(frozen=True, kw_only=True)
class ChildSettings:
    """What a child is told once.

    Attributes:
        load: what pictures become.
        memory_mb: millions of bytes that a picture may take.
        cpu_s: seconds of CPU time that a picture may take.
        parent_pid: the process without which the child ends.
    """

    load: LoadSettings
    memory_mb: int
    cpu_s: int
    parent_pid: int


def versions() -> dict[str, str]:
    """Return what must be the same in parent and child for the same picture to give the same."""
    return {
        "cv2": cv2.__version__,
        "edge_runtime": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "simplejpeg": simplejpeg.__version__,
    }


class _Stopwatch:
    """Times stages without a deadline: that is the parent's."""

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.timings_ms[name] = (time.perf_counter() - started) * 1e3

    def remaining_s(self) -> float | None:
        return None

    def move_ms(self, value_ms: float, *, source: str, target: str) -> None:
        raise NotImplementedError(f"{value_ms} ms of {source} are not moved to {target} here")


def main() -> None:
    """Serve the parent at the other end of the standard streams."""
    requests = os.fdopen(0, "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints cannot get between the answers
    cv2.setNumThreads(1)
    try:
        _serve(requests, answers)
    except BrokenPipeError:  # the parent has lost interest
        os._exit(0)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        os._exit(OUT_OF_MEMORY_CODE)  # at once: whatever an orderly end does may need memory


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    first = _read_frame(requests)
    if first is None:
        return
    settings = read_dataclass(ChildSettings, parse_json_object(first.text, name="settings"))
    _warm_up(settings.load)
    confine(memory_mb=settings.memory_mb)
    _send(answers, Frame(number=0, text=canonical_json(versions())))
    while _request_comes(requests, settings.parent_pid):
        frame = _read_frame(requests)
        if frame is None:
            return
        allow_cpu_s(settings.cpu_s)
        answer, can_go_on = _answer(frame, settings.load)
        _send(answers, answer)
        if not can_go_on:
            return


def _answer(frame: Frame, settings: LoadSettings) -> tuple[Frame, bool]:
    """Return the answer, and whether this process is still good for another picture.

    Raises:
        MemoryError: or OpenCV's form of it; there is nothing left to answer with.
    """
    clock = _Stopwatch()
    try:
        picture = load_picture(frame.data, settings, clock)
        return pack_loaded(frame.number, picture, clock.timings_ms["quality"]), True
    except Exception as error:
        if _is_out_of_memory(error):
            raise
        sha256 = hashlib.sha256(frame.data).hexdigest()
        if isinstance(error, ImageError):
            return pack_refusal(frame.number, sha256, error), True
        return pack_failure(frame.number, sha256, type(error).__name__), False


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory was the cause, also where OpenCV reports it in its own way."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
            return True
        error = error.__cause__
    return False


def _warm_up(settings: LoadSettings) -> None:
    """Run every stage once, so that what libraries load late is loaded before the limits."""
    disc = np.zeros((_WARM_UP_PX, _WARM_UP_PX, 3), np.uint8)
    cv2.circle(disc, (_WARM_UP_PX // 2,) * 2, _WARM_UP_PX * 2 // 5, (40, 90, 170), -1)
    data = cv2.imencode(".jpg", disc)[1].tobytes()
    with contextlib.suppress(ImageError):
        load_picture(data, settings, _Stopwatch())


def _request_comes(requests: BinaryIO, parent_pid: int) -> bool:
    """Wait for the next request; return False when the parent is gone."""
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while not poll.poll(_PARENT_CHECK_MS):
        if os.getppid() != parent_pid:
            return False
    return True


def _read_frame(stream: BinaryIO) -> Frame | None:
    """Read one frame of the parent, whose lengths are trusted; None at the end."""
    head = stream.read(HEAD_BYTES)
    if len(head) < HEAD_BYTES:
        return None
    parsed = FrameHead.parse(head, max_data_bytes=1 << 32)
    text, data = stream.read(parsed.num_text_bytes), stream.read(parsed.num_data_bytes)
    if len(text) + len(data) < parsed.num_text_bytes + parsed.num_data_bytes:
        return None
    return Frame(number=parsed.number, text=text, data=data)


def _send(stream: BinaryIO, frame: Frame) -> None:
    stream.write(pack_head(frame) + frame.text)
    stream.write(frame.data)
    stream.flush()


if __name__ == "__main__":
    sys.exit("edge_runtime.isolation.child is started by its parent; use `screen --isolate`")
