"""Interleaved timing for `end_to_end.py`: ratios with quartiles, and what else the machine did."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Row", "Watch", "race", "ratio_row", "table"]

BUSY_LOAD, BUSY_CPUS = 1.5, 0.3
Times = dict[str, dict[str, list[float]]]  # contestant -> "cpu" or "wall" -> seconds a round


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure beside its target.

    Attributes:
        name: what was measured, and of what.
        value: the figure; a ratio is the median over rounds.
        quartiles: over rounds; None for a figure that has no spread.
        target: None where there is none.
        at_least: whether the target is a floor; else it is a ceiling.
        unit: "times", "MiB", "dB" or "pictures".
    """

    name: str
    value: float
    quartiles: tuple[float, float] | None = None
    target: float | None = None
    at_least: bool = True
    unit: str = "times"

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON."""
        return {**asdict(self), "reached": self.reached}


def race(contestants: Mapping[str, Callable[[], None]], *, rounds: int, warmup: int = 1) -> Times:
    """Run every contestant once a round; the order turns, so that none always follows another.

    Args:
        contestants: name -> one pass over all pictures.
        rounds: timed rounds.
        warmup: rounds before, not counted.
    """
    names = list(contestants)
    times: Times = {name: {"cpu": [], "wall": []} for name in names}
    for number in range(-warmup, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            cpu, wall = time.process_time(), time.perf_counter()
            contestants[name]()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if number >= 0:
                times[name]["cpu"].append(cpu)
                times[name]["wall"].append(wall)
    return times


def ratio_row(
    title: str,
    times: Times,
    *,
    over: str,
    under: str,
    clock: str,
    target: float | None = None,
    at_least: bool = True,
) -> Row:
    """Median over rounds of (`over` / `under`) of the same round."""
    ratios = np.array(times[over][clock]) / np.array(times[under][clock])
    low, middle, high = (float(v) for v in np.quantile(ratios, (0.25, 0.5, 0.75)))
    return Row(
        name=f"{title}: {over} / {under}, {clock}",
        value=middle,
        quartiles=(low, high),
        target=target,
        at_least=at_least,
    )


@dataclass(kw_only=True)
class Watch:
    """What the machine is and what else it did while this ran; use as a context manager.

    Made before anything is prepared, so that the load is not of the preparation.
    """

    record: dict[str, Any] = field(
        default_factory=lambda: {"load_before": round(os.getloadavg()[0], 2)}
    )

    def __enter__(self) -> Watch:
        """Note what the machine is, and begin to count."""
        self._began = time.monotonic(), _machine_cpu_s(), _own_cpu_s()
        self.record.update(
            cpu_model=_cpu_model(),
            num_cpus=os.cpu_count(),
            machine=platform.machine(),
            python=platform.python_version(),
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Note how many processors others used meanwhile (None where the system does not say)."""
        wall, machine, own = (
            now - then
            for now, then in zip(
                (time.monotonic(), _machine_cpu_s(), _own_cpu_s()), self._began, strict=True
            )
        )
        foreign = (machine - own) / wall if machine > 0 else None
        self.record["foreign_cpus"] = None if foreign is None else round(foreign, 2)
        self.record["load_after"] = round(os.getloadavg()[0], 2)

    @property
    def busy(self) -> str | None:
        """Why the figures of this run compare with nothing, None when they do."""
        if self.record["load_before"] > BUSY_LOAD:
            return f"the load was {self.record['load_before']} before the run began"
        foreign = self.record.get("foreign_cpus")
        if foreign is not None and foreign > BUSY_CPUS:
            return f"other processes used {foreign} processors meanwhile"
        return None


def table(rows: Sequence[Row]) -> str:
    """Target and reached, a line a row."""
    width = max((len(row.name) for row in rows), default=0)
    lines = []
    for row in rows:
        spread = (
            "" if row.quartiles is None else f"({row.quartiles[0]:.2f} to {row.quartiles[1]:.2f})"
        )
        verdict = ""
        if row.target is not None:
            sign = ">=" if row.at_least else "<="
            verdict = f"target {sign} {row.target:g}  {'reached' if row.reached else 'NOT REACHED'}"
        value = f"{row.value:8.{2 if row.unit else 4}f} {row.unit:<8}"
        lines.append(f"{row.name:<{width}}  {value} {spread:<18} {verdict}")
    return "\n".join(line.rstrip() for line in lines)


def _own_cpu_s() -> float:
    return sum(os.times()[:4])


def _machine_cpu_s() -> float:
    """Busy seconds of all processors since the start, 0 where the system does not say."""
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, *_ = (int(word) for word in words)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor()
