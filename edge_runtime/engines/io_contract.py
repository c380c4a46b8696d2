"""What every engine of a bundle takes and gives, whoever runs the graph.

image_nhwc         uint8   (1, S, S, 3) RGB
logits             float32 (1, L)
gradability_logit  float32 (1, 1)
embedding          float32 (1, D)
evidence           float32 (1, L, h, w)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_runtime.engines import ModelOutput
from edge_runtime.errors import EngineError

__all__ = ["INPUT_NAME", "OUTPUT_NAMES", "check_image", "check_output_shapes", "to_model_output"]

INPUT_NAME = "image_nhwc"
OUTPUT_NAMES = ("logits", "gradability_logit", "embedding", "evidence")


def check_image(image_nhwc: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the picture has this shape and is uint8: an error of the caller."""
    if image_nhwc.shape != shape or image_nhwc.dtype != np.uint8:
        raise ValueError(f"image_nhwc is {image_nhwc.dtype} {image_nhwc.shape}, not uint8 {shape}")


def check_output_shapes(shapes: Mapping[str, tuple[int, ...]], num_labels: int) -> None:
    """Refuse outputs that are not known numbers in the contract's form.

    Raises:
        EngineError: A name is missing or extra, or a shape differs.
    """
    known = set(shapes) == set(OUTPUT_NAMES) and all(
        type(n) is int and n > 0 for shape in shapes.values() for n in shape
    )
    fits = (
        known
        and shapes["logits"] == (1, num_labels)
        and shapes["gradability_logit"] == (1, 1)
        and len(shapes["embedding"]) == 2
        and shapes["embedding"][0] == 1
        and len(shapes["evidence"]) == 4
        and shapes["evidence"][:2] == (1, num_labels)
    )
    if not fits:
        raise EngineError(
            f"the graph's outputs are {dict(shapes)}; expected logits (1, {num_labels}), "
            f"gradability_logit (1, 1), embedding (1, D), evidence (1, {num_labels}, h, w); "
            "export the bundle again"
        )


def to_model_output(values: Mapping[str, NDArray[np.float32]]) -> ModelOutput:
    """Return the outputs without their batch axis.

    Args:
        values: By name, in the contract's shapes; the arrays become the caller's own.

    Raises:
        EngineError: A number is not finite.
    """
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise EngineError(f"output {name} is not finite; run `edge-screen verify`")
    return ModelOutput(
        logits=values["logits"][0],
        gradability_logit=float(values["gradability_logit"][0, 0]),
        embedding=values["embedding"][0],
        evidence=values["evidence"][0],
    )
