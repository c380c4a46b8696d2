"""TensorRT's own words: kept for the message of the error that follows them, and logged.

TensorRT reports most failures as None or False; the reason is in its log alone. There is one
logger a process, because TensorRT keeps the first that it was given.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from functools import lru_cache
from typing import Any

__all__ = ["TrtLog", "trt_log"]

_log = logging.getLogger(__name__)
_MAX_KEPT = 3


class TrtLog:
    """What TensorRT said, kept apart by thread: engines of two threads do not mix their words."""

    def __init__(self, trt: Any) -> None:
        """Make the `ILogger` of the imported module that hands its messages to this log."""
        severity = trt.ILogger.Severity
        self._levels = {
            severity.INTERNAL_ERROR: logging.ERROR,
            severity.ERROR: logging.ERROR,
            severity.WARNING: logging.WARNING,
        }
        self._kept = threading.local()
        self.logger: Any = _make_logger(trt, self)

    def take(self, severity: Any, text: str) -> None:
        """Log a message; keep it when it is a complaint."""
        level = self._levels.get(severity, logging.DEBUG)
        _log.log(level, "TensorRT: %s", text)
        if level >= logging.WARNING:
            self._lines().append(text.strip())

    def forget(self) -> None:
        """Forget what this thread's earlier calls brought."""
        self._lines().clear()

    def complaints(self) -> str:
        """Return the last errors and warnings of this thread, or an empty text."""
        return " | ".join(self._lines())

    def _lines(self) -> deque[str]:
        if not hasattr(self._kept, "lines"):
            self._kept.lines = deque(maxlen=_MAX_KEPT)
        lines: deque[str] = self._kept.lines
        return lines


@lru_cache(maxsize=1)
def trt_log(*, module: Any) -> TrtLog:
    """Return the process's log for the imported module `tensorrt`."""
    return TrtLog(module)


def _make_logger(trt: Any, log: TrtLog) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, msg: str) -> None:
            log.take(severity, msg)

    return Logger()
