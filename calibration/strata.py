"""Choose the images of INT8 calibration so that every kind of eye is among them, and count them.

A stratum is a camera (its site), a grade and a quality. Activations of rare kinds - a bright
camera, proliferative retinopathy, a dark picture - are what a range chosen on common ones would
saturate, so each stratum has a few images before the rest are shared out in proportion.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.dataset import GRADABLE, Eye
from edge_runtime.errors import DataError

__all__ = ["FEWEST_IMAGES", "Stratum", "choose_int8_eyes", "count_strata", "thin_strata"]

FEWEST_IMAGES = 8
_QUALITY = {1.0: "gradable", 0.0: "ungradable"}
_Key = tuple[str, str, str]


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """One kind of eye in `train`.

    Attributes:
        site: as in index.csv; stands for the camera.
        grade: '0' to '4' or 'unknown'.
        quality: 'gradable', 'ungradable' or 'unknown'.
        num_available: eyes of this kind in `train`.
        num_used: images of them that the ranges come from.
    """

    site: str
    grade: str
    quality: str
    num_available: int
    num_used: int

    def __str__(self) -> str:
        """Say what it is and how many, for a message."""
        return (
            f"site {self.site or 'unknown'}, grade {self.grade}, {self.quality}: "
            f"{self.num_used} of {self.num_available}"
        )


def choose_int8_eyes(eyes: Sequence[Eye], num_images: int, seed: int) -> tuple[Eye, ...]:
    """Choose `num_images` train eyes, or all if there are fewer.

    Every stratum gets FEWEST_IMAGES where it has them and `num_images` allows; the rest follows
    the sizes. Inside a stratum eyes are ordered by findings, at random among equals, and taken
    at equal steps, so that findings have their share, too. The choice depends on the seed and the
    eyes, not on the order of the rows.

    Raises:
        DataError: there is no train eye.
    """
    strata = _by_stratum(eyes)
    if not strata:
        raise DataError("the train split is empty; INT8 calibration takes its images from it")
    keys = sorted(strata)
    counts = _shares([len(strata[key]) for key in keys], num_images)
    chosen: list[Eye] = []
    for key, count in zip(keys, counts, strict=True):
        ordered = sorted(strata[key], key=lambda eye: (_findings(eye), _lot(eye, seed)))
        chosen += [ordered[i] for i in np.arange(count) * len(ordered) // max(count, 1)]
    return tuple(chosen)


def count_strata(eyes: Sequence[Eye], used: Sequence[Eye]) -> tuple[Stratum, ...]:
    """Count the train eyes among `eyes`, and how many of them are in `used`, by stratum."""
    taken = {key: len(members) for key, members in _by_stratum(used).items()}
    return tuple(
        Stratum(
            site=key[0],
            grade=key[1],
            quality=key[2],
            num_available=len(members),
            num_used=taken.get(key, 0),
        )
        for key, members in sorted(_by_stratum(eyes).items())
    )


def thin_strata(strata: Sequence[Stratum]) -> tuple[Stratum, ...]:
    """Those with fewer than FEWEST_IMAGES images used: ranges may not hold what they show."""
    return tuple(stratum for stratum in strata if stratum.num_used < FEWEST_IMAGES)


def _by_stratum(eyes: Sequence[Eye]) -> dict[_Key, list[Eye]]:
    strata: dict[_Key, list[Eye]] = defaultdict(list)
    for eye in eyes:
        if eye.split == "train":
            quality = _QUALITY.get(eye.labels.get(GRADABLE, math.nan), "unknown")
            strata[eye.site, eye.grade or "unknown", quality].append(eye)
    return strata


def _shares(sizes: Sequence[int], total: int) -> list[int]:
    """How many of each stratum: a minimum for all, the rest by size (largest remainders)."""
    available = np.array(sizes)
    total = min(total, int(available.sum()))
    level = max(n for n in range(FEWEST_IMAGES + 1) if np.minimum(available, n).sum() <= total)
    least = np.minimum(available, level)
    rest, spare = available - least, total - int(least.sum())
    shares: list[int] = (least + _proportional(rest, spare)).tolist()
    return shares


def _proportional(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Whole numbers near total * sizes / sum(sizes) that add up to `total`."""
    whole, part = np.divmod(sizes * total, max(int(sizes.sum()), 1))
    missing = total - int(whole.sum())
    whole[np.argsort(-part, kind="stable")[:missing]] += 1
    return whole


def _findings(eye: Eye) -> tuple[str, ...]:
    return tuple(f"{name}={value:g}" for name, value in sorted(eye.labels.items()))


def _lot(eye: Eye, seed: int) -> str:
    """A number drawn for this eye, the same wherever its row and its folder are."""
    name = "/".join((str(seed), eye.patient_id, *eye.cfp_path.parts[-2:]))
    return hashlib.sha256(name.encode("utf-8")).hexdigest()
