"""Make the INT8 files of a bundle from its FP32 model and images of the train split."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.bias_correction import correct_biases
from calibration.cpu_form import to_cpu_form
from calibration.dataset import Eye, ImageStream
from calibration.half import to_half
from calibration.lint import lint_cpu, lint_half, lint_portable, require_clean
from calibration.observers import RangeMethod
from calibration.quantize import plan_quantization, quantize
from calibration.ranges import observe_activations, ranges_of
from calibration.run_models import INPUT_NAME, open_session
from calibration.strata import Stratum, choose_int8_eyes, count_strata
from edge_runtime.errors import BundleFormatError, ParityError
from edge_runtime.preprocess import PreprocessSpec

__all__ = ["Int8Files", "Int8Models", "make_int8_models", "require_same_integers", "write_files"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Int8Files:
    """The files of one plan.

    Attributes:
        portable: bytes of model.int8.onnx.
        cpu: bytes of model.int8-cpu.onnx.
        half: bytes of model.int8fp16.onnx; None where float16 cannot hold the model.
        float_nodes: nodes with weights that stay float.
    """

    portable: bytes
    cpu: bytes
    half: bytes | None
    float_nodes: tuple[str, ...]

    def by_precision(self) -> dict[str, bytes]:
        """Bytes by the words of `edge_runtime.bundle.MODEL_FILES`."""
        files = {"int8": self.portable, "int8_cpu": self.cpu}
        return files if self.half is None else {**files, "int8_fp16": self.half}


@dataclass(frozen=True, kw_only=True)
class Int8Models:
    """The files and how they were made.

    Attributes:
        files: the INT8 files.
        ranges: largest absolute value held, by activation.
        fingerprint: of the images used.
        num_images: images used.
        num_refused: images that preprocessing refused.
        strata: kinds of train eyes, and how many images of each were used.
    """

    files: Int8Files
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
    residual_pairs: str = "both",
    progress: Callable[[int, int], None] | None = None,
) -> Int8Models:
    """Observe ranges, write the portable file, derive the others, and check all.

    Raises:
        BundleFormatError: the FP32 graph cannot be quantised, or a rule of `lint` is broken.
        DataError: there are no train eyes, or a file cannot be read.
        ParityError: the two files differ on `check_images_nhwc`.
    """
    plan = plan_quantization(fp32, residual_pairs=residual_pairs)
    stream = ImageStream(choose_int8_eyes(eyes, num_images, seed), spec, progress)
    ranges = ranges_of(observe_activations(fp32, plan.observed, stream), method)
    files = write_files(
        fp32, ranges, check_images_nhwc=check_images_nhwc, residual_pairs=residual_pairs
    )
    return Int8Models(
        files=files,
        ranges=ranges,
        fingerprint=stream.fingerprint(),
        num_images=len(stream.used),
        num_refused=len(stream.refused),
        strata=count_strata(eyes, stream.used),
    )


def write_files(
    fp32: bytes,
    ranges: Mapping[str, float],
    *,
    check_images_nhwc: NDArray[np.uint8],
    residual_pairs: str = "both",
    excluded: Collection[str] = (),
    correction_nhwc: NDArray[np.uint8] | None = None,
) -> Int8Files:
    """Write the INT8 files from ranges that were observed, and check them.

    Args:
        fp32: the model that was observed.
        ranges: largest absolute value to hold, by activation.
        check_images_nhwc: (N, S, S, 3) uint8 on which both INT8 files must agree.
        residual_pairs: as in `plan_quantization`.
        excluded: nodes that stay float.
        correction_nhwc: images to correct biases on; None leaves the biases as they are.

    Raises:
        BundleFormatError: the graph cannot be quantised, or a rule of `lint` is broken.
        ParityError: the files differ on `check_images_nhwc`.
    """
    plan = plan_quantization(fp32, excluded=excluded, residual_pairs=residual_pairs)
    portable = quantize(fp32, plan, ranges)
    if correction_nhwc is not None:
        portable = correct_biases(portable, fp32, correction_nhwc)
    cpu, half = to_cpu_form(portable), _half_or_none(portable)
    if plan.conv_names:
        require_clean("model.int8.onnx", lint_portable(portable))
        require_clean("model.int8-cpu.onnx", lint_cpu(cpu))
    if half is not None:
        require_clean("model.int8fp16.onnx", lint_half(half))
    require_same_integers(portable, cpu, check_images_nhwc)
    return Int8Files(portable=portable, cpu=cpu, half=half, float_nodes=plan.float_nodes)


def _half_or_none(portable: bytes) -> bytes | None:
    try:
        return to_half(portable)
    except BundleFormatError as error:
        _LOG.warning("the bundle gets no model.int8fp16.onnx: %s", error)
        return None


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
