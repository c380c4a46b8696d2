"""TensorRT's own words: kept for the message of the error that follows them, and logged.

TensorRT reports most failures as None or False; the reason is in its log alone. There is one
logger a process, because TensorRT keeps the first that it was given.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from functools import lru_cache
from typing import Any, Protocol

__all__ = ["TrtLogger", "trt_logger"]

_log = logging.getLogger(__name__)
_MAX_KEPT = 3


class TrtLogger(Protocol):
    """An `ILogger` that keeps what went wrong in calls of the current thread."""

    def clear(self) -> None:
        """Forget what this thread's earlier calls brought."""

    def complaints(self) -> str:
        """Return the last errors and warnings of this thread, or an empty text."""


@lru_cache(maxsize=1)
def trt_logger(trt: Any) -> TrtLogger:
    """Return the process's logger for the imported module `trt`."""
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.WARNING,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._kept = threading.local()

        def log(self, severity: Any, msg: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            _log.log(level, "TensorRT: %s", msg)
            if level >= logging.WARNING:
                self._lines().append(msg.strip())

        def clear(self) -> None:
            self._lines().clear()

        def complaints(self) -> str:
            return " | ".join(self._lines())

        def _lines(self) -> deque[str]:
            if not hasattr(self._kept, "lines"):
                self._kept.lines = deque(maxlen=_MAX_KEPT)
            lines: deque[str] = self._kept.lines
            return lines

    made: TrtLogger = Logger()
    return made
