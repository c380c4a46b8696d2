"""The machine's state is read from the kernel's files, and never made up where they are absent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.bench.machine_state import NOT_AVAILABLE, read_machine_state
from edge_runtime.bench.process_memory import num_descriptors, peak_resident_mib, resident_mib

FILES = {
    "var/lib/nvpmodel/status": "pmode:0002 fmode:fanNull\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=MODE_15W >\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1728000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
    "sys/devices/system/cpu/cpu10/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu10/cpufreq/scaling_cur_freq": "729600\n",
    "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq": "729600\n",
    "sys/class/devfreq/17000000.ga10b/cur_freq": "624750000\n",
    "sys/class/devfreq/17000000.ga10b/max_freq": "918000000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48250\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    "sys/class/thermal/cooling_device1/type": "cpu-throttle\n",
    "sys/class/thermal/cooling_device1/cur_state": "0\n",
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "5000\n",
    "sys/class/hwmon/hwmon1/curr1_input": "1200\n",
    "sys/class/hwmon/hwmon2/oc1_event_cnt": "7\n",
}


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_everything_a_jetson_tells(jetson: Path) -> None:
    state = read_machine_state(root=jetson)
    assert state.power_mode == "MODE_15W (2)"
    assert state.governor == "performance, schedutil"
    assert list(state.clocks_mhz) == ["cpu0", "cpu2", "cpu10", "17000000.ga10b"]
    assert state.clocks_mhz["cpu0"] == pytest.approx(1510.4)
    assert state.clocks_mhz["17000000.ga10b"] == pytest.approx(624.75)
    assert state.max_clocks_mhz == {"cpu0": 1728.0, "17000000.ga10b": 918.0}
    assert state.temperatures_c == {"cpu-thermal": 48.25}  # the zone that is off is left out
    assert state.cooling_states == {"cpu-throttle": 0}  # a fan limits nothing
    assert state.throttle_counts == {"cpu0 core_throttle_count": 3, "hwmon2 oc1_event_cnt": 7}
    assert state.power_mw == {"VDD_IN": 6000.0}
    assert json.loads(json.dumps(state.to_dict()))["power_mode"] == "MODE_15W (2)"


def test_nothing_is_invented_where_nothing_is_told(tmp_path: Path) -> None:
    state = read_machine_state(root=tmp_path)
    assert (state.power_mode, state.governor) == (NOT_AVAILABLE, NOT_AVAILABLE)
    assert not any(
        (state.clocks_mhz, state.max_clocks_mhz, state.temperatures_c, state.throttle_counts)
    )
    assert not any((state.cooling_states, state.power_mw))
    assert state.throttled_since(state) == NOT_AVAILABLE


def test_a_mode_without_a_name_keeps_its_number(jetson: Path) -> None:
    (jetson / "etc/nvpmodel.conf").unlink()
    assert read_machine_state(root=jetson).power_mode == "unnamed (2)"
    (jetson / "var/lib/nvpmodel/status").write_text("damaged")
    assert read_machine_state(root=jetson).power_mode == NOT_AVAILABLE


def test_throttling_is_a_count_that_rose_or_a_limit_that_holds(jetson: Path) -> None:
    before = read_machine_state(root=jetson)
    assert before.throttled_since(before) == "no"
    (jetson / "sys/class/hwmon/hwmon2/oc1_event_cnt").write_text("9\n")
    after = read_machine_state(root=jetson)
    assert after.throttled_since(before) == "hwmon2 oc1_event_cnt +2"
    assert before.throttled_since(after) == "no"
    limited = replace(before, cooling_states={"cpu-throttle": 3})
    assert limited.throttled_since(before) == "cpu-throttle at 3"


def test_memory_and_descriptors_of_this_process(tmp_path: Path) -> None:
    now, peak = resident_mib(), peak_resident_mib()
    assert now is not None
    assert peak is not None
    assert 5 < now <= peak
    count = num_descriptors()
    with (tmp_path / "open").open("w"):
        assert num_descriptors() == (count or 0) + 1


def test_a_system_without_proc_says_none(tmp_path: Path) -> None:
    assert resident_mib(proc=tmp_path) is None
    assert peak_resident_mib(proc=tmp_path) is None
    assert num_descriptors(proc=tmp_path) is None
