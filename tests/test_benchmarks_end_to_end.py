"""The end-to-end benchmark runs, and its verdicts follow from its figures."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def race_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("end_to_end_race")


def test_ratios_are_of_the_same_round_and_verdicts_follow(race_module: ModuleType) -> None:
    times = {
        "A": {"cpu": [2.0, 9.0, 4.0], "wall": [1.0, 1.0, 1.0]},
        "ours": {"cpu": [1.0, 3.0, 1.0], "wall": [2.0, 2.0, 2.0]},
    }
    row = race_module.ratio_row("t", times, over="A", under="ours", clock="cpu", target=3.0)
    assert (row.value, row.quartiles, row.reached) == (3.0, (2.5, 3.5), True)
    late = race_module.ratio_row("t", times, over="A", under="ours", clock="wall", target=0.6)
    assert late.reached is False
    ceiling = race_module.Row(name="m", value=109.0, target=110.0, at_least=False, unit="MiB")
    assert ceiling.reached is True
    assert race_module.Row(name="no target", value=1.0).reached is None
    text = race_module.table([row, late, ceiling])
    assert text.count("NOT REACHED") == 1
    assert "target <= 110  reached" in text


def test_every_contestant_runs_once_a_round_in_turning_order(race_module: ModuleType) -> None:
    order: list[str] = []
    times = race_module.race(
        {name: (lambda name=name: order.append(name)) for name in "abc"}, rounds=3, warmup=1
    )
    assert [sorted(order[i : i + 3]) for i in range(0, 12, 3)] == [["a", "b", "c"]] * 4
    assert len({"".join(order[i : i + 3]) for i in range(3, 12, 3)}) == 3
    assert all(len(times[name][clock]) == 3 for name in "abc" for clock in ("cpu", "wall"))


def test_a_busy_machine_is_said(race_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    monkeypatch.setattr(race_module, "_machine_cpu_s", lambda: 0.0)
    with race_module.Watch() as quiet:
        assert quiet.busy is None
    assert (quiet.busy, quiet.record["foreign_cpus"]) == (None, None)
    quiet.record["foreign_cpus"] = 0.9
    assert "other processes used 0.9" in quiet.busy
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0.1, 0.1))
    assert "the load was 3.0" in race_module.Watch().busy


def test_fidelity_sees_a_shift_of_one_level(
    race_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    del race_module
    fidelity = importlib.import_module("end_to_end_fidelity")
    from bundle_factory import fundus_png

    from edge_runtime.preprocess import PreprocessSpec

    spec, data = PreprocessSpec(size_px=64), fundus_png(side_px=512)
    square, field = fidelity.psnr_of(data, spec)
    assert 40 < field < square < 99
    original = fidelity.load_for_model

    def brighter(*arguments: object) -> object:
        decoded, found = original(*arguments)
        shifted = np.where(found.image_hwc > 0, found.image_hwc + 20, 0).astype(np.uint8)
        return decoded, type(found)(**{**vars(found), "image_hwc": shifted})

    monkeypatch.setattr(fidelity, "load_for_model", brighter)
    assert max(fidelity.psnr_of(data, spec)) < 25


@pytest.mark.slow
def test_every_mode_runs_on_one_small_camera_picture(tmp_path: Path) -> None:
    from train.phantom.camera import render_camera_jpeg
    from train.phantom.sample import sample_patient

    images = tmp_path / "data" / "fullres" / "images"
    images.mkdir(parents=True)
    eye = sample_patient(0, 0)[0]
    (images / "one.jpg").write_bytes(render_camera_jpeg(eye, width_px=2592))
    common = ["--sizes", "64", "--real-only", "--rounds", "1", "--work", str(tmp_path / "work")]
    common += ["--allow-busy", "--json", "--num-decisions", "2", "--decision-width-px", "600"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "EDGE_SCREEN_DATA": str(tmp_path / "data"),
    }
    for mode in ([], ["--folder"], ["--cold"], ["--memory"], ["--fidelity"]):
        command = [sys.executable, str(ROOT / "benchmarks" / "end_to_end.py"), *common, *mode]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, (mode, done.stderr[-2000:])
        report = json.loads(done.stdout)
        assert report["rows"], mode
        assert all(np.isfinite(row["value"]) for row in report["rows"])
        assert "foreign_cpus" in report["machine"]
