"""Measure the INT8 ranges of a student's activations on training pictures.

The percentile of absolute values of the float student, as INT8 calibration takes it, in two
passes: one for the largest value of each tensor and one to count, so that memory does not grow
with the pictures.
"""

from __future__ import annotations

from collections import defaultdict

import torch

from distill.qat.fake_quant import ACTIVATION_LIMITS, round_up_to_half
from distill.qat.rounded_student import RoundedStudent
from distill.views import Pictures

__all__ = ["measure_ranges"]

_BINS = 2048
_BATCH = 64
_SMALLEST = 1e-4  # of a tensor that is zero on every picture; its scale is a float16


@torch.no_grad()
def measure_ranges(
    rounded: RoundedStudent, pictures: Pictures, picked: torch.Tensor, *, percentile: float
) -> dict[str, float]:
    """Set every range so that `percentile` percent of a tensor's values lie inside it.

    Args:
        rounded: its ranges are replaced.
        pictures: training photographs.
        picked: (N,) numbers of those that are looked at, unchanged.
        percentile: in (0, 100]; 100 is the largest value itself.

    Returns:
        Tensor -> range, exact to one part in 1024 of the largest value.
    """
    peaks: dict[str, float] = defaultdict(lambda: _SMALLEST)

    def note_peak(name: str, values: torch.Tensor) -> None:
        peaks[name] = max(peaks[name], float(values.abs().max()))

    counts: dict[str, torch.Tensor] = {}

    def count(name: str, values: torch.Tensor) -> None:
        found = torch.histc(values.float().abs(), bins=_BINS, min=0.0, max=peaks[name])
        found = found.double().cpu()
        counts[name] = counts[name] + found if name in counts else found

    for watch in (note_peak, count):
        with rounded.watching(watch):
            for numbers in torch.split(picked, _BATCH):
                rounded(pictures.plain(numbers).student_nchw)
    ranges = {name: _inside(counts[name], peaks[name], percentile) for name in counts}
    for name, amax in ranges.items():
        rounded.ranges[name].get_buffer("amax").fill_(amax)
    return ranges


def _inside(counts: torch.Tensor, peak: float, percentile: float) -> float:
    """Upper edge of the first bin up to which the wanted share of values lies.

    A little more where that makes the scale a float16 number, as in the INT8 files.
    """
    wanted = percentile / 100 * float(counts.sum())
    number = int(torch.searchsorted(counts.cumsum(0), torch.tensor(wanted, dtype=torch.float64)))
    scale = torch.tensor(peak * min(number + 1, _BINS) / _BINS / ACTIVATION_LIMITS[1])
    return ACTIVATION_LIMITS[1] * float(round_up_to_half(scale))
