"""What a person at a terminal sees of a long run, and how Ctrl-C ends it in good order."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

__all__ = ["INTERRUPTED_EXIT_CODE", "Interruption", "ScreenProgress", "catch_interrupt"]

INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as shells have it
_REDRAW_S = 0.2
_CLEAR_LINE = "\r\x1b[K"


class ScreenProgress:
    """One line on a terminal: how many are done, how fast, how long it will take.

    Nothing is written where the stream is no terminal. The line never names a picture.
    """

    def __init__(self, stream: TextIO, total: int) -> None:
        """Begin; a run of one examination shows nothing.

        Args:
            stream: Where the line goes, standard error.
            total: Number of examinations.
        """
        self._stream = stream
        self._total = total
        self._shown = total > 1 and stream.isatty()
        self._started = time.monotonic()
        self._drawn_at = 0.0
        self._num_done = self._num_screened = 0

    def step(self, *, is_known: bool) -> None:
        """Count one examination; `is_known` ones do not enter the rate."""
        self._num_done += 1
        self._num_screened += not is_known
        now = time.monotonic()
        if self._shown and now - self._drawn_at >= _REDRAW_S:
            self._drawn_at = now
            self._stream.write(f"{_CLEAR_LINE}{self.text(now - self._started)}")
            self._stream.flush()

    def text(self, elapsed_s: float) -> str:
        """Return the line after so many seconds."""
        text = f"{self._num_done}/{self._total} examinations"
        if self._num_screened and elapsed_s > 0.0:
            rate = self._num_screened / elapsed_s
            remaining_s = round((self._total - self._num_done) / rate)
            minutes, seconds = divmod(remaining_s, 60)
            hours, minutes = divmod(minutes, 60)
            text += f", {rate:.1f} a second, about {hours}:{minutes:02d}:{seconds:02d} left"
        return text

    def clear(self) -> None:
        """Take the line away, before something else is printed on the same terminal."""
        if self._shown and self._drawn_at:
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()
            self._drawn_at = 0.0


class Interruption:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        """Begin unpressed."""
        self._is_set = False

    def is_set(self) -> bool:
        """Return whether the run is to end after what is in work."""
        return self._is_set

    def set(self) -> None:
        """End the run after what is in work."""
        self._is_set = True


@contextmanager
def catch_interrupt() -> Iterator[Interruption]:
    """Turn the first Ctrl-C into a request to end; the second one breaks off at once.

    Outside the main thread, where signals cannot be caught, and where the shell had Ctrl-C
    ignored (a job in the background), nothing is changed.
    """
    interruption = Interruption()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield interruption
        return

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        interruption.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, before)
