"""Does the exported file compute what the student computes? One number for every output.

Tolerance: 1e-4 of an output's range. Float32 sums in another order differ by about 1e-6 of
it in networks of this depth; every real fault that was met (a border padded with another
colour, a normalisation off by half a level, a BatchNorm not folded) moves 1e-3 or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from calibration.run_models import open_session
from distill.student import Student
from edge_runtime.errors import ParityError
from export.to_onnx import INPUT_NAME, OUTPUT_NAMES
from train.arrays import normalize_cfp

__all__ = ["TOLERANCE", "OutputParity", "ParityReport", "check_parity", "probe_images"]

TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class OutputParity:
    """Largest difference of one output, and its range over all images, zero included."""

    name: str
    max_difference: float
    value_range: float

    @property
    def relative(self) -> float:
        """Difference as a share of the range."""
        return self.max_difference / max(self.value_range, 1e-6)


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """All outputs of one comparison."""

    outputs: tuple[OutputParity, ...]
    num_images: int
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether every output is finite and within the tolerance."""
        # Written so that NaN fails.
        return all(output.relative <= self.tolerance for output in self.outputs)

    def to_dict(self) -> dict[str, float | int | dict[str, float]]:
        """JSON types: the share of the range that each output is off."""
        shares = {output.name: output.relative for output in self.outputs}
        return {
            "num_images": self.num_images,
            "tolerance_of_range": self.tolerance,
            "difference_of_range": shares,
        }


def probe_images(size_px: int, *, seed: int = 0, num_random: int = 4) -> NDArray[np.uint8]:
    """(num_random + 2, S, S, 3) uint8: noise, all black and all white.

    Constant pictures show padding faults (only the border can differ), noise shows the rest.
    """
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (num_random, size_px, size_px, 3), dtype=np.uint8)
    flat = np.stack([np.full(noise.shape[1:], level, np.uint8) for level in (0, 255)])
    return np.concatenate([noise, flat])


def check_parity(
    student: Student,
    model_bytes: bytes,
    images_nhwc: NDArray[np.uint8],
    *,
    tolerance: float = TOLERANCE,
) -> ParityReport:
    """Compare the student, unfolded, in torch, with the file in ONNX Runtime.

    Args:
        student: in evaluation mode.
        model_bytes: what `export_onnx` wrote.
        images_nhwc: (N, S, S, 3) uint8 RGB; `probe_images` and some real ones.
        tolerance: largest difference as a share of an output's range.

    Raises:
        ParityError: an output differs by more; the message has the numbers.
    """
    expected = _run_student(student, images_nhwc)
    actual = _run_file(model_bytes, images_nhwc)
    outputs = tuple(
        _compare(name, want, got)
        for name, want, got in zip(OUTPUT_NAMES, expected, actual, strict=True)
    )
    report = ParityReport(outputs=outputs, num_images=len(images_nhwc), tolerance=tolerance)
    if not report.passed:
        raise ParityError(_refusal(report))
    return report


def _run_student(student: Student, images_nhwc: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    with torch.no_grad():
        out = student(normalize_cfp(torch.from_numpy(np.ascontiguousarray(images_nhwc))))
    return [getattr(out, name).float().numpy() for name in OUTPUT_NAMES]


def _run_file(
    model_bytes: bytes, images_nhwc: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
) -> list[NDArray[np.float32]]:
    session = open_session(model_bytes)
    rows = [session.run(list(OUTPUT_NAMES), {INPUT_NAME: image[None]}) for image in images_nhwc]
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def _compare(name: str, want: NDArray[np.float32], got: NDArray[np.float32]) -> OutputParity:
    if want.shape != got.shape:
        raise ParityError(f"{name} has shape {got.shape} in the file, {want.shape} in the student")
    value_range = max(float(want.max()), 0.0) - min(float(want.min()), 0.0)
    difference = np.abs(want.astype(np.float64) - got)
    return OutputParity(name=name, max_difference=float(difference.max()), value_range=value_range)


def _refusal(report: ParityReport) -> str:
    rows = [
        f"{output.name} differs by {output.max_difference:.3g} ({output.relative:.2e} of its range)"
        for output in report.outputs
        if not output.relative <= report.tolerance
    ]
    return (
        f"the exported file is not the student: {'; '.join(rows)}; allowed {report.tolerance:g} of "
        f"the range on {report.num_images} images; export with the pinned torch and onnx"
    )
