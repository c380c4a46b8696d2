"""Power mode, clocks, temperatures and throttling as the kernel tells them; never invented.

Where a machine has no such file the value is `NOT_AVAILABLE` or an empty mapping. Read before and
after a measurement, two states say whether the machine slowed itself down in between.

Sources: Linux sysfs (cpufreq, thermal, hwmon, devfreq); on a Jetson also nvpmodel's status file
and the INA3221 power monitor (NVIDIA, Jetson Linux Developer Guide, power and thermal chapters).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["NOT_AVAILABLE", "MachineState", "read_machine_state"]

NOT_AVAILABLE = "not available"
_CPU = "sys/devices/system/cpu"
_NVPMODEL_STATUS, _NVPMODEL_CONF = "var/lib/nvpmodel/status", "etc/nvpmodel.conf"


@dataclass(frozen=True, kw_only=True)
class MachineState:
    """One look at the machine.

    Attributes:
        power_mode: of a Jetson's nvpmodel, e.g. "MAXN (0)".
        governor: cpufreq governor of every processor, e.g. "schedutil".
        clocks_mhz: current clock by processor or devfreq device (the GPU of a Jetson).
        max_clocks_mhz: the largest clock that the settings allow now.
        temperatures_c: by thermal zone.
        throttle_counts: events since boot, by source; a rise means that it slowed itself down.
        cooling_states: cooling devices that limit something now, by name; 0 is no limit.
        power_mw: by rail of an INA3221.
    """

    power_mode: str
    governor: str
    clocks_mhz: Mapping[str, float]
    max_clocks_mhz: Mapping[str, float]
    temperatures_c: Mapping[str, float]
    throttle_counts: Mapping[str, int]
    cooling_states: Mapping[str, int]
    power_mw: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return asdict(self)

    def throttled_since(self, earlier: MachineState) -> str:
        """Say in words whether it throttled between two looks: "no", why, or `NOT_AVAILABLE`."""
        if not self.throttle_counts and not self.cooling_states:
            return NOT_AVAILABLE
        risen = [
            f"{name} +{value - earlier.throttle_counts.get(name, value)}"
            for name, value in self.throttle_counts.items()
            if value > earlier.throttle_counts.get(name, value)
        ]
        limited = [f"{name} at {level}" for name, level in self.cooling_states.items() if level]
        return ", ".join((*risen, *limited)) or "no"


def read_machine_state(*, root: Path = Path("/")) -> MachineState:
    """Look at the machine now; reads files, changes nothing.

    Args:
        root: where sys/, var/ and etc/ lie; for tests.
    """
    return MachineState(
        power_mode=_power_mode(root),
        governor=_governor(root),
        clocks_mhz=_clocks_mhz(root, "scaling_cur_freq", "cur_freq"),
        max_clocks_mhz=_clocks_mhz(root, "scaling_max_freq", "max_freq"),
        temperatures_c=_temperatures_c(root),
        throttle_counts=_throttle_counts(root),
        cooling_states=_cooling_states(root),
        power_mw=_power_mw(root),
    )


def _power_mode(root: Path) -> str:
    """Name and number; the status file holds the number, the configuration its name."""
    number = re.search(r"pmode:(\d+)", _text(root / _NVPMODEL_STATUS))
    if number is None:
        return NOT_AVAILABLE
    mode = int(number.group(1))
    names = re.findall(
        r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", _text(root / _NVPMODEL_CONF)
    )
    name = next((name for value, name in names if int(value) == mode), "unnamed")
    return f"{name} ({mode})"


def _governor(root: Path) -> str:
    found = {_text(path).strip() for path in _cpus(root, "cpufreq/scaling_governor")}
    return ", ".join(sorted(found - {""})) or NOT_AVAILABLE


def _clocks_mhz(root: Path, cpu_file: str, devfreq_file: str) -> dict[str, float]:
    """CPU clocks are in kHz, devfreq's in Hz."""
    clocks = {}
    for path in _cpus(root, f"cpufreq/{cpu_file}"):
        value = _number(path)
        if value is not None:
            clocks[path.parent.parent.name] = value / 1e3
    for folder in _entries(root / "sys/class/devfreq", "*"):
        value = _number(folder / devfreq_file)
        if value is not None:
            clocks[folder.name] = value / 1e6
    return clocks


def _temperatures_c(root: Path) -> dict[str, float]:
    """By zone type; a zone that is switched off answers with an error and is left out."""
    found: dict[str, float] = {}
    for zone in _entries(root / "sys/class/thermal", "thermal_zone*"):
        value = _number(zone / "temp")
        if value is not None:
            found[_unique(found, _text(zone / "type").strip() or zone.name)] = value / 1e3
    return found


def _throttle_counts(root: Path) -> dict[str, int]:
    """Thermal events of x86 cores and packages, over-current events of a Jetson."""
    paths = [
        *_cpus(root, "thermal_throttle/core_throttle_count"),
        *_cpus(root, "thermal_throttle/package_throttle_count"),
    ]
    counts = {f"{path.parent.parent.name} {path.stem}": _number(path) for path in paths}
    for folder in _entries(root / "sys/class/hwmon", "hwmon*"):
        for path in _entries(folder, "oc*_event_cnt"):
            counts[f"{folder.name} {path.name}"] = _number(path)
    return {name: int(value) for name, value in counts.items() if value is not None}


def _cooling_states(root: Path) -> dict[str, int]:
    """Of devices that cool by slowing down; a fan that turns limits nothing."""
    found: dict[str, int] = {}
    for device in _entries(root / "sys/class/thermal", "cooling_device*"):
        kind, value = _text(device / "type").strip(), _number(device / "cur_state")
        if value is not None and kind and "fan" not in kind.lower():
            found[_unique(found, kind)] = int(value)
    return found


def _power_mw(root: Path) -> dict[str, float]:
    """Millivolts times milliamperes of every labelled rail."""
    found: dict[str, float] = {}
    for monitor in _entries(root / "sys/class/hwmon", "hwmon*"):
        if not _text(monitor / "name").startswith("ina3221"):
            continue
        for label in _entries(monitor, "in*_label"):
            index = label.name[len("in") : -len("_label")]
            volts, amperes = (_number(monitor / f"{kind}{index}_input") for kind in ("in", "curr"))
            if volts is not None and amperes is not None:
                found[_unique(found, _text(label).strip() or label.name)] = volts * amperes / 1e3
    return found


def _cpus(root: Path, file: str) -> Iterator[Path]:
    for folder in _entries(root / _CPU, "cpu[0-9]*"):
        if (folder / file).is_file():
            yield folder / file


def _entries(folder: Path, pattern: str) -> list[Path]:
    """Sorted with numbers in their order: cpu2 before cpu10."""
    try:
        found = list(folder.glob(pattern))
    except OSError:
        return []
    return sorted(found, key=_natural)


def _natural(path: Path) -> tuple[str, int]:
    """Letters, then the first number in the name."""
    number = re.search(r"\d+", path.name)
    return re.sub(r"\d+", "", path.name), int(number.group()) if number else 0


def _unique(taken: Mapping[str, Any], name: str) -> str:
    """The name, numbered where it is taken."""
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name} {number}", number + 1
    return unique


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path).strip())
    except ValueError:
        return None
