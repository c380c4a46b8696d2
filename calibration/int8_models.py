"""Make both INT8 files of a bundle from its FP32 model and images of the train split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.cpu_form import to_cpu_form
from calibration.dataset import Eye, ImageStream
from calibration.lint import lint_cpu, lint_portable, require_clean
from calibration.observers import RangeMethod
from calibration.quantize import plan_quantization, quantize
from calibration.ranges import observe_activations, ranges_of
from calibration.run_models import INPUT_NAME, open_session
from calibration.strata import Stratum, choose_int8_eyes, count_strata
from edge_runtime.errors import ParityError
from edge_runtime.preprocess import PreprocessSpec

__all__ = ["Int8Models", "make_int8_models", "require_same_integers"]


@dataclass(frozen=True, kw_only=True)
class Int8Models:
    """Both files and how they were made.

    Attributes:
        portable: bytes of model.int8.onnx.
        cpu: bytes of model.int8-cpu.onnx.
        float_nodes: nodes with weights that stay float.
        ranges: largest absolute value held, by activation.
        fingerprint: of the images used.
        num_images: images used.
        num_refused: images that preprocessing refused.
        strata: kinds of train eyes, and how many images of each were used.
    """

    portable: bytes
    cpu: bytes
    float_nodes: tuple[str, ...]
    ranges: Mapping[str, float]
    fingerprint: str
    num_images: int
    num_refused: int
    strata: tuple[Stratum, ...]


def make_int8_models(
    fp32: bytes,
    eyes: Sequence[Eye],
    spec: PreprocessSpec,
    *,
    method: RangeMethod,
    num_images: int,
    seed: int,
    check_images_nhwc: NDArray[np.uint8],
    progress: Callable[[int, int], None] | None = None,
) -> Int8Models:
    """Observe ranges, write the portable file, derive the CPU file, and check both.

    Raises:
        BundleFormatError: the FP32 graph cannot be quantised, or a rule of `lint` is broken.
        DataError: there are no train eyes, or a file cannot be read.
        ParityError: the two files differ on `check_images_nhwc`.
    """
    plan = plan_quantization(fp32)
    stream = ImageStream(choose_int8_eyes(eyes, num_images, seed), spec, progress)
    ranges = ranges_of(observe_activations(fp32, plan.observed, stream), method)
    portable = quantize(fp32, plan, ranges)
    cpu = to_cpu_form(portable)
    require_clean("model.int8.onnx", lint_portable(portable))
    require_clean("model.int8-cpu.onnx", lint_cpu(cpu))
    require_same_integers(portable, cpu, check_images_nhwc)
    return Int8Models(
        portable=portable,
        cpu=cpu,
        float_nodes=plan.float_nodes,
        ranges=ranges,
        fingerprint=stream.fingerprint(),
        num_images=len(stream.used),
        num_refused=len(stream.refused),
        strata=count_strata(eyes, stream.used),
    )


def require_same_integers(portable: bytes, cpu: bytes, images_nhwc: NDArray[np.uint8]) -> None:
    """Require both files to agree bit for bit when their graphs run node by node as written.

    Raises:
        ParityError: an output differs, which would make CPU results say nothing about TensorRT.
    """
    sessions = [open_session(data, optimized=False) for data in (portable, cpu)]
    names = [output.name for output in sessions[0].get_outputs()]
    for image in images_nhwc:
        first, second = (session.run(names, {INPUT_NAME: image[None]}) for session in sessions)
        for name, a, b in zip(names, first, second, strict=True):
            if not np.array_equal(a, b):
                raise ParityError(
                    f"the portable and the CPU INT8 file differ in {name} by "
                    f"{float(np.abs(a - b).max()):.3g}; they must agree bit for bit. Report the "
                    "student's architecture as a defect"
                )
