"""Observe the activations of the FP32 graph over images, in constant memory.

One pass of the optimised graph with the tensors to quantise as extra outputs; one histogram
a tensor; no activation outlives its image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.observers import RangeHistogram, RangeMethod
from calibration.onnx_graph import load_model, save_model
from calibration.run_models import INPUT_NAME, open_session
from edge_runtime.errors import EngineError

__all__ = ["observe_activations", "ranges_of"]


def observe_activations(
    model_bytes: bytes, tensors: Sequence[str], images_hwc: Iterable[NDArray[np.uint8]]
) -> dict[str, RangeHistogram]:
    """Fill one histogram for each tensor.

    Args:
        model_bytes: the FP32 model.
        tensors: names of float tensors inside it.
        images_hwc: (S, S, 3) uint8 RGB images.

    Raises:
        EngineError: there is no image, or an activation is not finite.
    """
    session = open_session(_with_outputs(model_bytes, tensors))
    histograms = {name: RangeHistogram() for name in tensors}
    num_images = 0
    for num_images, image in enumerate(images_hwc, start=1):
        arrays = session.run(list(tensors), {INPUT_NAME: image[None]}) if tensors else []
        for name, array in zip(tensors, arrays, strict=True):
            try:
                histograms[name].update(array)
            except ValueError as error:
                raise EngineError(
                    f"activation '{name}' on image {num_images}: {error}; train the model again"
                ) from error
    if num_images == 0:
        raise EngineError(
            "no image for INT8 calibration; the train split is empty, every image was refused, "
            "or a generator was used twice"
        )
    return histograms


def ranges_of(histograms: dict[str, RangeHistogram], method: RangeMethod) -> dict[str, float]:
    """Largest absolute value to hold, by tensor."""
    return {name: histogram.amax(method) for name, histogram in histograms.items()}


def _with_outputs(model_bytes: bytes, tensors: Sequence[str]) -> bytes:
    """The same model with `tensors` as additional outputs."""
    from onnx import TensorProto, helper

    model = load_model(model_bytes)
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors
    )
    return save_model(model)
