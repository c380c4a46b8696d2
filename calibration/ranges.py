"""Observe the activations of the FP32 graph over images, in constant memory.

One pass of the optimised graph with the tensors to quantise as outputs; one histogram a tensor;
no activation outlives its image. Worker threads share the session and take one image at a time;
their histograms are merged, and since counts do not depend on who counted, the result does not
depend on the number of threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.histogram import RangeHistogram
from calibration.observers import RangeMethod, amax
from calibration.onnx_graph import load_model, save_model
from calibration.run_models import INPUT_NAME, open_session
from edge_runtime.errors import EngineError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["default_threads", "observe_activations", "ranges_of", "with_outputs"]

# Each thread holds the activations of one image, some 100 MiB at 512 px with the session's own.
_MAX_THREADS = 2


def default_threads() -> int:
    """One thread a processor, two at most: memory stays below 500 MiB at 512 px."""
    return min(os.cpu_count() or 1, _MAX_THREADS)


def observe_activations(
    model_bytes: bytes,
    tensors: Sequence[str],
    images_hwc: Iterable[NDArray[np.uint8]],
    *,
    num_threads: int | None = None,
) -> dict[str, RangeHistogram]:
    """Fill one histogram for each tensor.

    Args:
        model_bytes: the FP32 model.
        tensors: names of float tensors inside it.
        images_hwc: (S, S, 3) uint8 RGB images; read by one thread at a time.
        num_threads: None = `default_threads()`; changes the time taken and nothing else.

    Raises:
        EngineError: there is no image, or an activation is not finite; the message names it.
    """
    # Where only the image is quantised nothing needs to run, but the images are still counted.
    session = None
    if tensors:
        session = open_session(with_outputs(model_bytes, tensors), plan_memory=False)
    source = _SharedImages(images_hwc)
    count = num_threads or default_threads()
    with ThreadPoolExecutor(count) as pool:
        workers = [pool.submit(_observe, session, tensors, source) for _ in range(count)]
        try:
            parts = [worker.result() for worker in workers]
        finally:
            source.stop()
    if source.num_taken == 0:
        raise EngineError(
            "no image for INT8 calibration; the train split is empty, every image was refused, "
            "or a generator was used twice"
        )
    return _merged(parts)


def ranges_of(histograms: Mapping[str, RangeHistogram], method: RangeMethod) -> dict[str, float]:
    """Largest magnitude to hold, by tensor."""
    return {name: amax(histogram, method) for name, histogram in histograms.items()}


def with_outputs(model_bytes: bytes, tensors: Sequence[str]) -> bytes:
    """The model with `tensors` as its outputs, and without what none of them depends on.

    The heads and the last convolution, whose output INT8 does not read, need not run: a third of
    the arithmetic of a mobilenetv4_conv_small.
    """
    from onnx import TensorProto, helper

    model = load_model(model_bytes)
    del model.graph.output[:]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors
    )
    return save_model(model)


class _SharedImages:
    """Hands out numbered images to several threads, one at a time, until one of them fails."""

    def __init__(self, images: Iterable[NDArray[np.uint8]]) -> None:
        self._images, self._lock, self._stopped = iter(images), threading.Lock(), False
        self.num_taken = 0

    def take(self) -> tuple[int, NDArray[np.uint8]] | None:
        with self._lock:
            image = None if self._stopped else next(self._images, None)
            if image is None:
                return None
            self.num_taken += 1
            return self.num_taken, image

    def stop(self) -> None:
        self._stopped = True


def _observe(
    session: onnxruntime.InferenceSession | None, tensors: Sequence[str], source: _SharedImages
) -> dict[str, RangeHistogram]:
    """Work of one thread: histograms of the images that it got."""
    histograms = {name: RangeHistogram() for name in tensors}
    try:
        while (item := source.take()) is not None:
            number, image = item
            arrays = session.run(list(tensors), {INPUT_NAME: image[None]}) if session else []
            for name, array in zip(tensors, arrays, strict=True):
                _update(histograms[name], array, f"activation '{name}' on image {number}")
    except BaseException:
        source.stop()
        raise
    return histograms


def _update(histogram: RangeHistogram, array: NDArray[np.float32], where: str) -> None:
    try:
        histogram.update(array)
    except ValueError as error:
        raise EngineError(f"{where}: {error}; train the model again") from error


def _merged(parts: Sequence[dict[str, RangeHistogram]]) -> dict[str, RangeHistogram]:
    first, *others = parts
    for other in others:
        for name, histogram in other.items():
            first[name].merge(histogram)
    return first
