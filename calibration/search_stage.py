"""Hand the calibrate stage's images and gate to `calibration.accuracy`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.accuracy import AccuracyOutcome, LabelledImages, SearchConfig, improve_int8
from calibration.dataset import GRADABLE, Eye, ImageStream
from calibration.gate import GateOutcome
from calibration.int8_models import Int8Files, Int8Models
from calibration.observers import RangeMethod
from calibration.placement import plan_quantization
from calibration.ranges import observe_activations, ranges_of
from calibration.search import TrialResult
from calibration.strata import choose_int8_eyes
from edge_runtime.bundle_parts.gate_record import FAILED
from edge_runtime.preprocess import PreprocessSpec

__all__ = ["search_int8", "trial_result"]


def trial_result(gate: GateOutcome) -> TrialResult:
    """What the search needs of the gate: losses are AUROC lost and decisions flipped, as shares.

    "Not shown" is no failure: no model passes where the patients are too few.
    """
    report = gate.report
    flips = report.decision_flips / max(report.num_decisions, 1)
    return TrialResult(
        passed=report.status != FAILED,
        loss=report.mean_auroc_drop + flips,
        reasons=tuple(report.reasons),
    )


def search_int8(
    fp32: bytes,
    refused: Int8Models,
    gate: GateOutcome,
    judge_files: Callable[[Int8Files], GateOutcome],
    *,
    eyes: Sequence[Eye],
    label_names: Sequence[str],
    spec: PreprocessSpec,
    method: RangeMethod,
    num_images: int,
    residual_pairs: str,
    seed: int,
    check_images_nhwc: NDArray[np.uint8],
    config: SearchConfig,
    progress: Callable[[str, int, int], None] | None = None,
) -> AccuracyOutcome:
    """Search from INT8 models that the gate refused.

    Args:
        fp32: the model as exported.
        refused: the INT8 models made from it.
        gate: what it said of them.
        judge_files: asks it about other files, on the same eyes.
        eyes: of train and val.
        label_names: diseases in the order of the logits.
        spec: preprocessing.
        method: of the ranges.
        num_images: INT8-calibration images.
        residual_pairs: as in `plan_quantization`.
        seed: of every choice of images.
        check_images_nhwc: as in `write_files`.
        config: settings of the search.
        progress: called with (step, done, in all).
    """

    def observe(model: bytes) -> dict[str, float]:
        plan = plan_quantization(model, residual_pairs=residual_pairs)
        stream = ImageStream(choose_int8_eyes(eyes, num_images, seed), spec)
        return dict(ranges_of(observe_activations(model, plan.observed, stream), method))

    train = ImageStream(choose_int8_eyes(eyes, config.num_images, seed), spec)
    return improve_int8(
        fp32,
        (refused.files, trial_result(gate)),
        refused.ranges,
        gate=lambda files: trial_result(judge_files(files)),
        observe=observe,
        train_nhwc=np.stack(list(train)),
        val=_labelled(eyes, label_names, spec, config.num_images, seed),
        check_images_nhwc=check_images_nhwc,
        residual_pairs=residual_pairs,
        config=config,
        progress=progress,
    )


def _labelled(
    eyes: Sequence[Eye], label_names: Sequence[str], spec: PreprocessSpec, count: int, seed: int
) -> LabelledImages:
    """Some val eyes, every kind of finding among them."""
    val = [eye for eye in eyes if eye.split == "val"]
    order = np.random.default_rng(seed).permutation(len(val)).tolist()
    names = (*label_names, GRADABLE)
    shuffled = sorted((val[i] for i in order), key=lambda eye: [str(eye.labels[n]) for n in names])
    steps = np.arange(min(count, len(val))) * len(val) // min(count, len(val))
    stream = ImageStream([shuffled[i] for i in steps.tolist()], spec)
    images = np.stack(list(stream))
    labels = np.array([[eye.labels[name] for name in names] for eye in stream.used])
    # Nobody sees a disease on an ungradable picture.
    labels[labels[:, -1] == 0, :-1] = np.nan
    return LabelledImages(images_nhwc=images, labels=labels)
