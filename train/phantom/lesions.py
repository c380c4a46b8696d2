"""Lesions of the latent eye: where drusen, hemorrhages, exudates and new vessels lie."""

from __future__ import annotations

import math

import numpy as np

from train.phantom.latent import Anatomy, Disease, FloatArray, Lesions, Vessel

__all__ = ["sample_lesions"]

_NONE = np.zeros((0, 3), np.float32)


def sample_lesions(rng: np.random.Generator, anatomy: Anatomy, disease: Disease) -> Lesions:
    """Draw the lesions that fit a disease state.

    Args:
        rng: Source of randomness of this eye.
        anatomy: Where fovea and disc lie.
        disease: Severities; `dr_grade` decides which kinds of DR lesions may occur.

    Returns:
        Lesions in field units.
    """
    fovea, grade, dr = anatomy.fovea_xy, disease.dr_grade, disease.dr
    num_ma = rng.poisson(4 + 14 * dr) + 1 if grade >= 1 else 0
    num_hem, num_exu = _count_red_and_yellow(rng, grade, dr)
    exudates = _scatter(rng, num_exu, fovea, 0.33, 0.014, 0.026)
    if disease.edema > 0 and rng.random() < 0.22:
        exudates = np.concatenate([exudates, _edema_ring(rng, fovea, disease)])
    hemorrhages = _bleeds(rng, _scatter(rng, num_hem, fovea, 0.42, 0.022, 0.052))
    return Lesions(
        drusen=_off_disc(
            anatomy,
            _scatter(rng, _count_drusen(rng, disease.amd), fovea, 0.22, 0.012, 0.030),
        ),
        microaneurysms=_off_disc(anatomy, _scatter(rng, num_ma, fovea, 0.38, 0.012, 0.019)),
        hemorrhages=_off_disc(anatomy, hemorrhages),
        exudates=_off_disc(anatomy, exudates),
        preretinal=_preretinal(rng, anatomy) if grade == 4 and rng.random() < 0.5 else _NONE,
        pigment_clumps=_clumps(rng, fovea, disease.amd),
        new_vessels=_fronds(rng, anatomy) if grade == 4 else (),
    )


def _off_disc(anatomy: Anatomy, rows: FloatArray) -> FloatArray:
    """Move lesions that fell on the disc to the mirrored place beyond the fovea."""
    from_disc = np.hypot(rows[:, 0] - anatomy.disc_xy[0], rows[:, 1] - anatomy.disc_xy[1])
    on_disc = from_disc < 1.2 * anatomy.disc_radius + rows[:, 2]
    rows[on_disc, 0] = 2 * anatomy.fovea_xy[0] - rows[on_disc, 0]
    return rows


def _count_red_and_yellow(rng: np.random.Generator, grade: int, dr: float) -> tuple[int, int]:
    if grade < 2:
        return 0, 0
    hemorrhages = 1 + rng.poisson(9 * (dr - 0.25)) + (8 if grade >= 3 else 0)
    return int(hemorrhages), int(rng.poisson(10 * max(0.0, dr - 0.35)))


def _count_drusen(rng: np.random.Generator, amd: float) -> int:
    if amd > 0:
        return int(4 + 22 * amd)
    return int(rng.integers(1, 4)) if rng.random() < 0.15 else 0


def _scatter(
    rng: np.random.Generator,
    count: int,
    center_xy: tuple[float, float],
    spread: float,
    radius_min: float,
    radius_max: float,
) -> FloatArray:
    rows = np.empty((count, 3), np.float32)
    rows[:, :2] = np.asarray(center_xy) + rng.normal(0, spread, (count, 2))
    rows[:, 2] = rng.uniform(radius_min, radius_max, count)
    return rows


def _bleeds(rng: np.random.Generator, centers: FloatArray) -> FloatArray:
    """Give hemorrhages a shape: irregular blots, or flames drawn out along nerve fibres."""
    rows = [centers]
    for x, y, radius in centers.tolist():
        count, flame = int(rng.integers(3, 7)), rng.random() < 0.35
        angle = rng.normal(0, 0.5) if flame else rng.uniform(0, 2 * math.pi, count)
        reach = np.linspace(-2.0, 2.0, count) if flame else rng.uniform(0.4, 1.0, count)
        size = rng.uniform(0.25, 0.7, count) * (0.7 if flame else 1.0)
        parts = [x + radius * reach * np.cos(angle), y + radius * reach * np.sin(angle)]
        rows.append(np.stack([*parts, radius * size], 1).astype(np.float32))
    centers[:, 2] *= 0.8
    return np.concatenate(rows)


def _edema_ring(
    rng: np.random.Generator, fovea: tuple[float, float], disease: Disease
) -> FloatArray:
    """Hard exudates at the rim of the swelling."""
    count = int(rng.integers(3, 9))
    angle = rng.uniform(0, 2 * math.pi) + rng.uniform(0, 2.2, count)
    distance = disease.edema_radius * rng.uniform(0.8, 1.4, count)
    x = fovea[0] + disease.edema_offset_xy[0] + distance * np.cos(angle)
    y = fovea[1] + disease.edema_offset_xy[1] + distance * np.sin(angle)
    return np.stack([x, y, rng.uniform(0.008, 0.018, count)], 1).astype(np.float32)


def _clumps(rng: np.random.Generator, fovea: tuple[float, float], amd: float) -> FloatArray:
    if amd < 0.7:
        return _NONE
    return _scatter(rng, int(rng.integers(2, 6)), fovea, 0.10, 0.008, 0.018)


def _preretinal(rng: np.random.Generator, anatomy: Anatomy) -> FloatArray:
    """One boat-shaped bleed below an arcade or near the disc."""
    side = 1 if rng.random() < 0.7 else -1
    x = anatomy.fovea_xy[0] + anatomy.nasal_sign * rng.uniform(-0.1, 0.45)
    y = anatomy.fovea_xy[1] + side * rng.uniform(0.30, 0.50)
    return np.array([[x, y, rng.uniform(0.10, 0.17)]], np.float32)


def _fronds(rng: np.random.Generator, anatomy: Anatomy) -> tuple[Vessel, ...]:
    """Curly new vessels at the disc or along an arcade."""
    if rng.random() < 0.6:
        root = anatomy.disc_xy
    else:
        side = 1 if rng.random() < 0.5 else -1
        root = (anatomy.fovea_xy[0] + 0.2 * anatomy.nasal_sign, anatomy.fovea_xy[1] + side * 0.48)
    start = rng.uniform(0, 2 * math.pi)
    count = int(rng.integers(9, 15))
    return tuple(_frond(rng, root, start + 2.6 * k / count) for k in range(count))


def _frond(rng: np.random.Generator, root: tuple[float, float], heading: float) -> Vessel:
    steps = int(rng.integers(9, 16))
    turn = rng.normal(0, 0.25) + np.cumsum(rng.normal(0, 0.28, steps))
    angle = heading + turn + 0.9 * np.sin(np.arange(steps) * rng.uniform(0.5, 0.9))
    move = 0.016 * np.stack([np.cos(angle), np.sin(angle)], 1)
    points = np.asarray(root) + 0.03 * rng.standard_normal(2) + np.cumsum(move, 0)
    return Vessel(
        points_xy=points.astype(np.float32),
        widths=np.full(steps, 0.0075, np.float32),
        is_vein=False,
        order=9,
    )
