"""Releases what was acquired, in reverse order and all of it, whatever fails on the way."""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime.errors import EngineError

__all__ = ["Closers"]


class Closers:
    """A stack of releases. Unlike `contextlib.ExitStack` it keeps no frame and no traceback.

    A traceback holds the locals of its frames, and a CUDA object that is kept alive by one would
    be released later, on another thread than its own.
    """

    def __init__(self) -> None:
        """Start with nothing to release."""
        self._steps: list[Callable[[], object]] = []

    def push(self, release: Callable[[], object]) -> None:
        """Add a release that runs before all that were added earlier."""
        self._steps.append(release)

    def close(self, *, first: Callable[[], object] | None = None) -> str | None:
        """Run every release once; return the messages of those that failed, or None.

        `first` is run before them unless everything was released already: nothing may be freed
        while the device still works on it.

        Only `EngineError` counts as a release that failed; anything else is a mistake of ours
        and is raised, once the remaining releases have run.
        """
        failures: list[str] = []
        if self._steps and first is not None:
            self.push(first)
        while self._steps:
            try:
                self._steps.pop()()
            except EngineError as error:
                failures.append(str(error))
            except BaseException:
                self.close()
                raise
        return "; ".join(failures) or None
