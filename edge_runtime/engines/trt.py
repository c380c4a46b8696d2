"""The TensorRT engine as `Engine`: calls from any thread, one owner thread, an end to every wait.

After a failure of TensorRT or CUDA the session answers every later call with that failure. The
engine can still be closed, and opened anew.
"""

from __future__ import annotations

import weakref
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge_runtime.engines import MAX_CALLERS, EngineFacts, ModelOutput
from edge_runtime.engines.io_contract import check_image, to_model_output
from edge_runtime.engines.owner_thread import OwnerThread
from edge_runtime.engines.trt_options import TrtOptions
from edge_runtime.engines.trt_session import TrtSession
from edge_runtime.errors import EdgeScreenError, EngineError

__all__ = ["TrtEngine"]


class TrtEngine:
    """A `TrtSession` behind its owner thread. `close` it; the garbage collector is a net only."""

    name = "tensorrt"

    def __init__(
        self,
        session: TrtSession,
        *,
        precision: str,
        size_px: int,
        options: TrtOptions,
        facts: EngineFacts | None = None,
    ) -> None:
        """Open the session on a thread of its own.

        Args:
            session: Not opened yet; it belongs to the engine from now on.
            precision: "fp32", "fp16" or "int8"; carried into results.
            size_px: Side S of the input picture.
            options: How to run.
            facts: What the opener knows already, for example why this engine and which plan.

        Raises:
            EngineError: TensorRT or CUDA refuses; everything is released by then.
        """
        self.precision = precision
        self._shape = (1, size_px, size_px, 3)
        self._options = options
        self._session = session
        self._thread = OwnerThread(
            "edge-screen-tensorrt",
            max_waiting=options.max_waiting,
            idle_s=options.keep_warm_s,
            on_idle=session.keep_warm,
        )
        self._close = weakref.finalize(self, _stop, self._thread, session, options.open_timeout_s)
        try:
            found = self._thread.call(session.open, timeout_s=options.open_timeout_s)
        except EdgeScreenError as error:
            text = _then(str(error), self._release())
            raise type(error)(text) from None
        self._facts = (facts or EngineFacts()).with_more(found.details, found.warnings)

    @property
    def facts(self) -> EngineFacts:
        """What it runs on, and what it had to do without."""
        return self._facts

    @property
    def max_callers(self) -> int:
        """One that runs, and those that may wait behind it."""
        return min(MAX_CALLERS, self._options.max_waiting + 1)

    def run(self, image_nhwc: NDArray[np.uint8], *, timeout_s: float | None = None) -> ModelOutput:
        """Run one picture, uint8 (1, S, S, 3) RGB.

        Args:
            image_nhwc: The picture.
            timeout_s: How long to wait at most, where that is less than `run_timeout_s`.

        Raises:
            EngineBusyError: Too many calls wait, or there was no answer in time.
            EngineError: The engine is closed or has failed, or an output is not finite.
            ValueError: The picture has another shape or dtype (an error of the caller).
        """
        check_image(image_nhwc, self._shape)
        limit_s = self._options.run_timeout_s
        values = self._thread.call(
            partial(self._session.run, image_nhwc),
            timeout_s=limit_s if timeout_s is None else min(limit_s, max(0.0, timeout_s)),
        )
        return to_model_output(values)

    def close(self) -> None:
        """Release everything and end the thread; a second call does nothing.

        Raises:
            EngineError: A release failed, or the device hangs; nothing more can be done.
        """
        self._close()

    def _release(self) -> str | None:
        try:
            self._close()
        except EngineError as error:
            return str(error)
        return None


def _stop(thread: OwnerThread, session: TrtSession, timeout_s: float) -> None:
    thread.stop(session.close, timeout_s=timeout_s)


def _then(first: str, second: str | None) -> str:
    return first if second is None else f"{first}; and then: {second}"
