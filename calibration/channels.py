"""Largest magnitude and mean of every channel of some tensors over a few images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.onnx_graph import load_model, save_model
from calibration.run_models import INPUT_NAME, open_session
from edge_runtime.errors import EngineError

__all__ = ["ChannelStats", "observe_channels"]


@dataclass(frozen=True, kw_only=True)
class ChannelStats:
    """(C,) float64: largest absolute value, and mean over images and places."""

    amax: NDArray[np.float64]
    mean: NDArray[np.float64]


def observe_channels(
    model_bytes: bytes, tensors: Sequence[str], images_nhwc: NDArray[np.uint8]
) -> dict[str, ChannelStats]:
    """Run a model and look at some feature maps.

    Args:
        model_bytes: any file of a bundle.
        tensors: names of (1, C, H, W) float tensors inside it.
        images_nhwc: (N, S, S, 3) uint8.

    Raises:
        EngineError: there is no image, or a number is not finite.
    """
    if not len(images_nhwc):
        raise EngineError("no image to observe channels on; the train split has no usable eye")
    if not tensors:
        return {}
    names = list(dict.fromkeys(tensors))
    session = open_session(_with_outputs(model_bytes, names))
    peaks: dict[str, NDArray[np.float64]] = {}
    sums: dict[str, NDArray[np.float64]] = {}
    for image in images_nhwc:
        for name, array in zip(names, session.run(names, {INPUT_NAME: image[None]}), strict=True):
            peak = np.abs(array).max(axis=(0, 2, 3)).astype(np.float64)
            total = array.mean(axis=(0, 2, 3), dtype=np.float64)
            peaks[name] = np.maximum(peaks.get(name, peak), peak)
            sums[name] = sums.get(name, np.zeros_like(total)) + total
    for name, total in sums.items():
        if not np.isfinite(total).all():
            raise EngineError(f"activation '{name}' is not finite; train the model again")
    return {
        name: ChannelStats(amax=peaks[name], mean=sums[name] / len(images_nhwc)) for name in names
    }


def _with_outputs(model_bytes: bytes, tensors: Sequence[str]) -> bytes:
    from onnx import TensorProto, helper

    model = load_model(model_bytes)
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors
    )
    return save_model(model)
