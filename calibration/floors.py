"""Whether a share is shown to lie above a floor that was fixed beforehand.

The floors of the first autonomous systems: sensitivity 85 %, specificity 82.5 %, to be exceeded
by the lower end of the interval (Abramoff et al. 2018, npj Digital Medicine 1:39).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from edge_runtime.metrics import Interval, wilson_interval

__all__ = [
    "BELOW",
    "SENSITIVITY_FLOOR",
    "SHOWN",
    "SPECIFICITY_FLOOR",
    "TOO_FEW",
    "FloorTest",
    "judge_floor",
    "num_eyes_for_floor",
]

SENSITIVITY_FLOOR, SPECIFICITY_FLOOR = 0.85, 0.825
SHOWN, TOO_FEW, BELOW = "shown", "too_few", "below"


@dataclass(frozen=True, kw_only=True)
class FloorTest:
    """Whether the lower end exceeds the floor.

    `status` is 'shown'; or 'too_few': the value is above the floor, but these patients do not
    show it, about `num_patients_needed` would; or 'below': the value itself is not above it, and
    no number of such patients would show it (`num_patients_needed` is null).
    """

    floor: float
    lower_bound: float
    status: str
    num_patients: int
    num_patients_needed: int | None


def judge_floor(share: Interval, floor: float, *, num_eyes: int, num_patients: int) -> FloorTest:
    """Judge one share.

    Args:
        share: value and interval by patients.
        floor: to be exceeded by `share.low`.
        num_eyes: eyes of the class.
        num_patients: whose eyes they are.
    """
    status: str = BELOW
    needed: int | None = None
    if share.low > floor:
        status, needed = SHOWN, num_patients
    elif share.value > floor:
        status, needed = TOO_FEW, _patients_needed(share, floor, num_eyes, num_patients)
    return FloorTest(
        floor=floor,
        lower_bound=share.low,
        status=status,
        num_patients=num_patients,
        num_patients_needed=needed,
    )


def num_eyes_for_floor(share: float, floor: float, level: float = 0.95) -> int:
    """Fewest independent eyes at which Wilson's lower end at `share` exceeds `floor`.

    Wilson's lower end exceeds the floor where the score test rejects it: n (share - floor)^2 >
    z^2 floor (1 - floor).

    Raises:
        ValueError: `share` does not exceed `floor`.
    """
    if not 0.0 <= floor < share <= 1.0:
        raise ValueError(f"no number of eyes shows a share of {share} to exceed {floor}")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    return math.floor(z**2 * floor * (1.0 - floor) / (share - floor) ** 2) + 1


def _patients_needed(share: Interval, floor: float, num_eyes: int, num_patients: int) -> int:
    """Eyes by Wilson, times what patients cost over independent eyes, in patients."""
    wilson = wilson_interval(round(share.value * num_eyes), num_eyes, share.level)
    effect = max(1.0, (share.high - share.low) / (wilson.high - wilson.low)) ** 2
    eyes = num_eyes_for_floor(share.value, floor, share.level) * effect
    return max(num_patients + 1, math.ceil(eyes * num_patients / num_eyes))
