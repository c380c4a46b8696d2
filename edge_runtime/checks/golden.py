"""Does an engine give the answers that the bundle recorded for its golden pictures?

`verify` asks it of every file on ONNX Runtime. `Screener.open` asks it of TensorRT before the
first patient: that engine was built on this device by a compiler that nobody else has run, and
wrong numbers that are finite look like any others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle import Bundle
from edge_runtime.engines import Engine
from edge_runtime.errors import VerificationError
from edge_runtime.label_scores import all_labels, probabilities, run_logits, thresholds

__all__ = ["GoldenComparison", "compare_golden", "golden_tolerance", "require_golden"]


_REMEDIES = {
    "tensorrt": "build it again (edge-screen engine clear, then engine build), or use "
    "--engine onnxruntime",
    "onnxruntime": "use --provider cpu",
}


@dataclass(frozen=True, kw_only=True)
class GoldenComparison:
    """Recorded answers beside those of an engine.

    Attributes:
        num_pictures: Golden pictures compared.
        num_probabilities: Of all pictures and heads.
        max_difference: Largest difference of a probability; not a number if an answer is none.
        atol_probability: What the bundle allows.
        num_changed: Decisions that differ although the recorded probability is further from
            the threshold than the tolerance.
        num_rounded: Decisions that differ within it, where honest rounding may.
    """

    num_pictures: int
    num_probabilities: int
    max_difference: float
    atol_probability: float
    num_changed: int
    num_rounded: int

    @property
    def passed(self) -> bool:
        """Whether the answers are the recorded ones; a difference that is no number is not."""
        return self.max_difference <= self.atol_probability and self.num_changed == 0

    @property
    def detail(self) -> str:
        """The figures in one line."""
        text = (
            f"{self.num_pictures} picture(s), {self.num_probabilities} probabilities, largest "
            f"difference {self.max_difference:.2e} (allowed {self.atol_probability:.2e}), "
            f"{self.num_changed} decisions changed"
        )
        if self.num_rounded:
            text += f", {self.num_rounded} more within the tolerance of a threshold"
        return text


def golden_tolerance(bundle: Bundle, precision: str) -> float:
    """How far a probability may be off; FP16 rounds about as much as INT8, a bundle states two."""
    tolerances = bundle.manifest.golden
    is_fp32 = precision == "fp32"
    return tolerances.atol_probability_fp32 if is_fp32 else tolerances.atol_probability_int8


def compare_golden(
    bundle: Bundle, engine: Engine, *, num_pictures: int | None = None
) -> GoldenComparison:
    """Run golden pictures through an engine, which stays open.

    FP16 answers to the FP32 answers, within `golden_tolerance`.

    Args:
        bundle: Calibrated.
        engine: Opened on the bundle.
        num_pictures: The first so many; None: all.

    Raises:
        BundleFormatError: The golden vectors cannot be read, or a label has no operating point.
        EngineError: The engine fails on a picture.
    """
    golden = bundle.golden()
    key = "int8_cpu" if engine.precision == "int8" else "fp32"
    recorded = np.concatenate([golden.logits[key], golden.gradability_logit[key]], axis=1)
    actual = np.stack([run_logits(engine, one) for one in golden.image_nhwc[:num_pictures]])
    atol = golden_tolerance(bundle, engine.precision)
    return _compare(bundle, recorded[:num_pictures], actual, atol)


def require_golden(bundle: Bundle, engine: Engine) -> None:
    """Refuse an engine that does not give the recorded answers.

    Raises:
        VerificationError: It does not; nothing may be screened with it.
        EngineError: The engine fails on a picture.
    """
    found = compare_golden(bundle, engine)
    if not found.passed:
        raise VerificationError(
            f"the {engine.name} engine ({engine.precision}) of bundle {bundle.manifest.name!r} "
            f"does not give the recorded answers on this device: {found.detail}. Do not screen "
            f"with it: {_REMEDIES[engine.name]}, and send the output of edge-screen verify to the "
            "maker"
        )


def _compare(
    bundle: Bundle,
    recorded: NDArray[np.float32],
    actual: NDArray[np.float32],
    atol: float,
) -> GoldenComparison:
    """Compare (G, L + 1) logits as probabilities and as decisions."""
    labels = all_labels(bundle)
    p_actual, p_recorded = probabilities(labels, actual), probabilities(labels, recorded)
    limits = thresholds(labels)
    flipped = (p_actual >= limits) != (p_recorded >= limits)
    is_clear = np.abs(p_recorded - limits) > atol
    return GoldenComparison(
        num_pictures=len(actual),
        num_probabilities=int(p_actual.size),
        max_difference=float(np.abs(p_actual - p_recorded).max()),
        atol_probability=atol,
        num_changed=int(np.count_nonzero(flipped & is_clear)),
        num_rounded=int(np.count_nonzero(flipped & ~is_clear)),
    )
