"""Grow the vessel tree: arcades above and below the macula, nasal trunks, branches, twigs.

Growth works in disc coordinates (t, v): t grows from the disc towards the fovea and beyond
(temporal), v downwards. Right and left eyes therefore grow alike and only the last step,
into field coordinates, mirrors one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from train.phantom.latent import Anatomy, FloatArray, Vessel

__all__ = ["grow_vessels", "scan_crossings"]

_STEP = 0.03
_Point = tuple[float, float]


def grow_vessels(
    rng: np.random.Generator, anatomy: Anatomy, *, reach: float = 1.08
) -> tuple[Vessel, ...]:
    """Grow arteries and veins of one eye.

    Args:
        rng: Source of randomness of this eye.
        anatomy: Where fovea and disc lie, and the laterality.
        reach: Distance from the middle of a centred field at which vessels end.

    Returns:
        Vessels in field coordinates, trunks first within each family.
    """
    grower = _Grower(rng, anatomy, reach)
    for is_vein in (False, True):
        for side in (-1, 1):
            grower.temporal_arcade(side, is_vein)
            grower.nasal_trunk(side, is_vein)
    grower.macular_twigs()
    return tuple(grower.vessels)


@dataclass(frozen=True)
class _Plan:
    """How one branch walks: where it heads, how fast it turns, when it ends."""

    aim: Callable[[float, float], float]
    ends: Callable[[float, float], bool]
    width: float
    num_steps: int
    order: int
    is_vein: bool
    fork_rate: float
    pull: float = 0.10


class _Grower:
    """Holds one eye's frame while its vessels are grown."""

    def __init__(self, rng: np.random.Generator, anatomy: Anatomy, reach: float) -> None:
        self.rng = rng
        self.reach2 = reach * reach
        self.side = anatomy.nasal_sign
        self.disc = anatomy.disc_xy
        self.disc_radius = anatomy.disc_radius
        self.fovea_t = self.side * (self.disc[0] - anatomy.fovea_xy[0])
        self.fovea_v = anatomy.fovea_xy[1] - self.disc[1]
        self.faz = float(rng.uniform(0.085, 0.12))
        self.scale = float(rng.uniform(0.9, 1.1))
        # each arcade: how far and how high it arches, how far artery and vein lie from its
        # middle (either may be the outer one), and how much it leans where it leaves the disc
        self.arch = {k: (rng.uniform(0.80, 1.12), rng.uniform(0.46, 0.58)) for k in (-1, 1)}
        self.gap = {k: rng.uniform(0.018, 0.036) * rng.choice((-1, 1)) for k in (-1, 1)}
        self.exit = {k: rng.normal(-0.02, 0.045) for k in (-1, 1)}
        self.vessels: list[Vessel] = []

    def outside(self, t: float, v: float) -> bool:
        """Whether a point lies beyond the reach of the tree."""
        x, y = self.disc[0] - self.side * t, self.disc[1] + v
        return x * x + y * y > self.reach2

    def add(self, points: FloatArray, widths: FloatArray, is_vein: bool, order: int) -> None:
        """Keep a vessel, mapped from disc to field coordinates."""
        x = self.disc[0] - self.side * points[:, 0]
        xy = np.stack([x, self.disc[1] + points[:, 1]], 1).astype(np.float32)
        widths = widths.astype(np.float32)
        self.vessels.append(Vessel(points_xy=xy, widths=widths, is_vein=is_vein, order=order))

    def temporal_arcade(self, side: int, is_vein: bool) -> None:
        """One trunk that arches from the disc around the macula, with its branches."""
        rng = self.rng
        reach_t, height = self.arch[side]
        gap = self.gap[side] if is_vein else -self.gap[side]
        theta = np.linspace(0.0, rng.uniform(1.95, 2.30), 56)
        wave = _wiggle(rng, theta, 0.020 if is_vein else 0.024) + gap * np.minimum(1, theta)
        t = reach_t * (1 - np.cos(theta)) - wave * np.cos(theta) + self.exit[side] * np.sin(theta)
        v = side * (height + wave) * np.sin(theta) ** 0.85 + 0.2 * self.fovea_v * theta
        t += 0.012 * gap / abs(gap) * np.exp(-theta * 6)
        keep = self._inside_count(t, v)
        width = self.scale * (0.027 if is_vein else 0.020) * rng.uniform(0.9, 1.08)
        points = np.stack([t, v], 1)[:keep]
        widths = width * (1 - 0.62 * np.linspace(0, 1, 56))[:keep]
        self.add(points, widths, is_vein, 0)
        self._branch_along(points, widths, side, is_vein)

    def _inside_count(self, t: FloatArray, v: FloatArray) -> int:
        """Points of a trunk up to the first that leaves the reach."""
        x, y = self.disc[0] - self.side * t, self.disc[1] + v
        beyond = np.flatnonzero(x * x + y * y > self.reach2)
        return int(beyond[0]) + 1 if len(beyond) else len(t)

    def _branch_along(
        self, points: FloatArray, widths: FloatArray, side: int, is_vein: bool
    ) -> None:
        """Set outward and inward branches at irregular distances along an arcade."""
        rng, travelled = self.rng, np.cumsum(np.hypot(*np.diff(points, axis=0).T))
        at, outward = self.disc_radius * rng.uniform(1.2, 2.0), rng.random() < 0.5
        while at < travelled[-1] - 0.05:
            i = int(np.searchsorted(travelled, at))
            (t0, v0), (t1, v1) = points[i].tolist(), points[i + 1].tolist()
            heading = math.atan2(v1 - v0, t1 - t0)
            grow = self._outward if outward else self._inward
            grow((t1, v1), heading, float(widths[i]), side, is_vein)
            at += rng.uniform(0.09, 0.19) if outward else rng.uniform(0.10, 0.24)
            outward = not outward if rng.random() < 0.75 else outward

    def _outward(
        self, start: _Point, heading: float, width: float, side: int, is_vein: bool
    ) -> None:
        """A branch towards the periphery."""
        rng, center = self.rng, (0.55 * self.fovea_t, self.fovea_v)
        plan = _Plan(
            aim=lambda t, v: math.atan2(v - center[1], t - center[0]),
            ends=self.outside,
            width=width * rng.uniform(0.50, 0.70),
            num_steps=int(rng.integers(14, 30)),
            order=1,
            is_vein=is_vein,
            fork_rate=0.10,
        )
        self._walk(start, heading + side * rng.uniform(0.3, 0.7), plan)

    def _inward(
        self, start: _Point, heading: float, width: float, side: int, is_vein: bool
    ) -> None:
        """A branch towards the macula; it ends before the avascular zone or the raphe."""
        rng = self.rng
        goal = (max(self.fovea_t, start[0] + 0.20) + rng.normal(0, 0.08), self.fovea_v)
        stop2, margin = (self.faz + abs(rng.normal(0, 0.06))) ** 2, abs(rng.normal(0.03, 0.03))

        def ends(t: float, v: float) -> bool:
            near = (t - self.fovea_t) ** 2 + (v - self.fovea_v) ** 2 < stop2
            return near or side * (v - self.fovea_v) < margin or self.outside(t, v)

        plan = _Plan(
            aim=lambda t, v: math.atan2(goal[1] - v, goal[0] - t),
            ends=ends,
            width=min(0.010, width * rng.uniform(0.36, 0.55)),
            num_steps=int(rng.integers(11, 21)),
            order=2,
            is_vein=is_vein,
            fork_rate=0.11,
            pull=0.09,
        )
        self._walk(start, heading - side * rng.uniform(0.25, 0.60), plan)

    def nasal_trunk(self, side: int, is_vein: bool) -> None:
        """A trunk that leaves the disc on the far side from the macula."""
        rng = self.rng
        heading = side * (math.pi / 2 + rng.uniform(0.35, 0.95))
        plan = _Plan(
            aim=lambda t, v: math.atan2(v, t - 0.1),
            ends=self.outside,
            width=self.scale * (0.020 if is_vein else 0.016) * rng.uniform(0.85, 1.1),
            num_steps=int(rng.integers(20, 28)),
            order=1,
            is_vein=is_vein,
            fork_rate=0.16,
            pull=0.05,
        )
        self._walk((0.0, side * 0.012), heading, plan)

    def macular_twigs(self) -> None:
        """Thin vessels from the temporal disc margin towards the fovea."""
        rng = self.rng
        for k in range(int(rng.integers(2, 5))):
            side = 1 if k % 2 else -1
            goal_v = self.fovea_v + side * rng.uniform(0.05, 0.14)
            stop2 = (self.faz + abs(rng.normal(0.02, 0.05))) ** 2
            plan = _Plan(
                aim=lambda t, v, g=goal_v: math.atan2(g - v, self.fovea_t - t),  # type: ignore[misc]
                ends=lambda t, v, s=stop2: self._near_fovea(t, v, s),  # type: ignore[misc]
                width=0.0085 * rng.uniform(0.8, 1.1),
                num_steps=int(rng.integers(10, 17)),
                order=2,
                is_vein=bool(rng.random() < 0.5),
                fork_rate=0.06,
            )
            self._walk((0.3 * self.disc_radius, side * 0.02), side * rng.uniform(0.15, 0.8), plan)

    def _near_fovea(self, t: float, v: float, stop2: float) -> bool:
        return (t - self.fovea_t) ** 2 + (v - self.fovea_v) ** 2 < stop2 or t > self.fovea_t + 0.1

    def _walk(self, start: _Point, heading: float, plan: _Plan) -> None:
        """Walk one branch with smooth curl, forking now and then."""
        rng, steps = self.rng, plan.num_steps
        curls, forks = rng.normal(0, 0.075, steps).tolist(), rng.random(steps).tolist()
        (t, v), points, curl = start, [start], 0.0
        for i in range(steps):
            curl = 0.75 * curl + curls[i]
            heading += plan.pull * math.sin(plan.aim(t, v) - heading) + 0.6 * curl
            t, v = t + _STEP * math.cos(heading), v + _STEP * math.sin(heading)
            points.append((t, v))
            if plan.ends(t, v):
                break
            if i > 2 and forks[i] < plan.fork_rate and plan.order < 4 and plan.width > 0.0055:
                self._fork((t, v), heading, plan, steps - i)
        if len(points) > 2:
            taper = 1 - 0.68 * np.arange(len(points)) / steps
            self.add(np.array(points), plan.width * taper, plan.is_vein, plan.order)

    def _fork(self, start: _Point, heading: float, plan: _Plan, steps_left: int) -> None:
        turn = self.rng.uniform(0.4, 0.8) * (1 if self.rng.random() < 0.5 else -1)
        child = _Plan(
            aim=lambda t, v: plan.aim(t, v) + 0.5 * turn,
            ends=plan.ends,
            width=plan.width * float(self.rng.uniform(0.55, 0.75)),
            num_steps=max(4, int(steps_left * self.rng.uniform(0.6, 1.0))),
            order=plan.order + 1,
            is_vein=plan.is_vein,
            fork_rate=plan.fork_rate * 0.6,
            pull=plan.pull * 0.5,
        )
        self._walk(start, heading + turn, child)


def _wiggle(rng: np.random.Generator, theta: FloatArray, amplitude: float) -> FloatArray:
    """A smooth random wave along a trunk, zero at its start."""
    waves = [
        math.pow(0.8, k) * np.sin(k * theta + rng.uniform(0, 2 * math.pi)) for k in (1.9, 4.3, 8.3)
    ]
    rise = np.minimum(1.0, theta / 0.5)
    return np.asarray(amplitude * rise * np.sum(waves, axis=0))


def scan_crossings(
    vessels: tuple[Vessel, ...], fovea_xy: tuple[float, float], axis: int
) -> FloatArray:
    """Find where a foveal scan line crosses vessels.

    Args:
        vessels: The tree, in field coordinates.
        fovea_xy: The point through which the scan goes.
        axis: 0 for the horizontal scan, 1 for the vertical one.

    Returns:
        float32 rows (position along the scan from the fovea, width), field units.
    """
    along, across = axis, 1 - axis
    rows = []
    for vessel in vessels:
        offset = vessel.points_xy[:, across] - fovea_xy[across]
        for i in np.flatnonzero(offset[:-1] * offset[1:] < 0):
            share = offset[i] / (offset[i] - offset[i + 1])
            here, there = vessel.points_xy[i, along], vessel.points_xy[i + 1, along]
            rows.append((here + share * (there - here) - fovea_xy[along], vessel.widths[i]))
    return np.array(rows, np.float32).reshape(-1, 2)
