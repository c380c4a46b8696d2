"""Run bundle models on preprocessed images with ONNX Runtime, one image at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BundleFormatError, EngineError

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["ModelScores", "open_session", "score_models"]

INPUT_NAME = "image_nhwc"


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """Outputs of one model on N images.

    Attributes:
        logits: (N, L) float64, one column a disease label in manifest order.
        gradability_logits: (N,) float64.
    """

    logits: NDArray[np.float64]
    gradability_logits: NDArray[np.float64]


def open_session(
    model_bytes: bytes, *, optimized: bool = True, num_threads: int = 1, plan_memory: bool = True
) -> onnxruntime.InferenceSession:
    """Load a model for the CPU.

    Args:
        model_bytes: an ONNX file.
        optimized: False runs the graph node by node as written (the arithmetic oracle).
        num_threads: threads inside one operator.
        plan_memory: False allocates every activation when it comes; where many of them are
            outputs and threads share the session, that takes a fifth less memory.

    Raises:
        BundleFormatError: ONNX Runtime refuses the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    options.enable_mem_pattern = plan_memory
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    )
    try:
        return onnxruntime.InferenceSession(
            model_bytes, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime has a class of its own for every failure, no base
        raise BundleFormatError(
            f"ONNX Runtime cannot load the model: {error}; export the bundle again"
        ) from error


def score_models(
    models: Mapping[str, bytes], images_hwc: Iterable[NDArray[np.uint8]]
) -> dict[str, ModelScores]:
    """Run several models over one pass of images, so that no image is kept.

    Args:
        models: ONNX bytes by name.
        images_hwc: (S, S, 3) uint8 RGB, as `edge_runtime.preprocess` makes them.

    Raises:
        EngineError: there is no image, or a model gives a number that is not finite.
    """
    sessions = {name: open_session(data) for name, data in models.items()}
    rows: dict[str, list[NDArray[np.float64]]] = {name: [] for name in models}
    for image in images_hwc:
        for name, session in sessions.items():
            logits, gradability = session.run(
                ["logits", "gradability_logit"], {INPUT_NAME: image[None]}
            )
            rows[name].append(np.concatenate([logits[0], gradability[0]]).astype(np.float64))
    return {name: _scores(name, values) for name, values in rows.items()}


def _scores(name: str, rows: list[NDArray[np.float64]]) -> ModelScores:
    if not rows:
        raise EngineError("no image to run the models on; check the data set's splits")
    table = np.stack(rows)
    if not np.isfinite(table).all():
        raise EngineError(f"model {name} gave a logit that is not finite; train or export it again")
    return ModelScores(logits=table[:, :-1], gradability_logits=table[:, -1])
