"""How much each group of layers costs when it alone is INT8: one sweep over a few images.

    SQNR = 10 log10( sum z^2 / sum (z - z_g)^2 )  dB

z are the FP32 logits (diseases and gradability, each centred on its mean over the images), z_g
those of the model in which group g alone is INT8. Source: the per-layer analysis of Nagel et
al., A White Paper on Neural Network Quantization (2021), section 4.1. Beside it stands what the
task feels: the mean AUROC that FP32 has and the group's model has not, on labelled eyes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.cpu_form import to_cpu_form
from calibration.groups import LayerGroup
from calibration.placement import plan_quantization
from calibration.quantize import quantize
from calibration.run_models import INPUT_NAME, open_session
from edge_runtime.metrics import auroc

__all__ = ["GroupSensitivity", "measure_sensitivity", "rank_worst_first", "sqnr_db", "task_loss"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class GroupSensitivity:
    """What one group costs alone: SQNR of the logits in dB (low is bad) and mean AUROC lost."""

    group: LayerGroup
    sqnr_db: float
    task_loss: float


def measure_sensitivity(
    fp32: bytes,
    groups: Sequence[LayerGroup],
    ranges: Mapping[str, float],
    images_nhwc: NDArray[np.uint8],
    labels: FloatArray,
    *,
    residual_pairs: str = "both",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[GroupSensitivity, ...]:
    """Run the model once for every group with only that group in INT8.

    Args:
        fp32: the model that was observed.
        groups: of `calibration.groups.find_groups`.
        ranges: largest absolute value to hold, by activation, of the whole plan.
        images_nhwc: (N, S, S, 3) uint8.
        labels: (N, K) truth of the K outputs, diseases then gradability; NaN is unknown.
        residual_pairs: as in `plan_quantization`.
        progress: called with (groups done, groups in all).
    """
    exact = logits_of(fp32, images_nhwc)
    everything = frozenset(name for group in groups for name in group.nodes)
    measured = []
    for number, group in enumerate(groups, start=1):
        plan = plan_quantization(
            fp32, excluded=everything - set(group.nodes), residual_pairs=residual_pairs
        )
        rough = logits_of(to_cpu_form(quantize(fp32, plan, ranges)), images_nhwc)
        loss = task_loss(labels, exact, rough)
        measured.append(
            GroupSensitivity(group=group, sqnr_db=sqnr_db(exact, rough), task_loss=loss)
        )
        if progress is not None:
            progress(number, len(groups))
    return tuple(measured)


def rank_worst_first(measured: Sequence[GroupSensitivity]) -> tuple[GroupSensitivity, ...]:
    """Order by SQNR, which hears every group; equal ones by what the task loses."""
    return tuple(sorted(measured, key=lambda item: (item.sqnr_db, -item.task_loss)))


def logits_of(model_bytes: bytes, images_nhwc: NDArray[np.uint8]) -> FloatArray:
    """(N, K) logits of diseases, then of gradability."""
    session = open_session(model_bytes)
    rows = [
        np.concatenate(session.run(["logits", "gradability_logit"], {INPUT_NAME: image[None]}), 1)
        for image in images_nhwc
    ]
    return np.concatenate(rows).astype(np.float64)


def sqnr_db(exact: FloatArray, rough: FloatArray) -> float:
    """Signal to quantisation noise of (N, K) logits, the signal without its mean; inf if equal."""
    signal = np.square(exact - exact.mean(axis=0)).sum()
    noise = np.square(exact - rough).sum()
    if noise == 0.0:
        return float("inf")
    return float(10.0 * np.log10(max(signal, np.finfo(np.float64).tiny) / noise))


def task_loss(labels: FloatArray, exact: FloatArray, rough: FloatArray) -> float:
    """Mean over outputs of AUROC(exact) - AUROC(rough); outputs of one class only are left out."""
    losses = []
    for truth, before, after in zip(labels.T, exact.T, rough.T, strict=True):
        known = ~np.isnan(truth)
        if len(np.unique(truth[known])) == 2:
            losses.append(auroc(truth[known], before[known]) - auroc(truth[known], after[known]))
    return float(np.mean(losses)) if losses else 0.0
