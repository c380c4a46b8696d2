"""The benchmark of INT8 ranges runs, and its figures are of what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from calibration_data import write_data
from calibration_graphs import LABELS, build_student

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_speed_and_accuracy_on_a_small_student(tmp_path):
    (tmp_path / "student.onnx").write_bytes(build_student())
    write_data(tmp_path / "eyes", build_student(), num_patients=24)
    command = [sys.executable, str(ROOT / "benchmarks" / "int8_calibration.py"), "--json"]
    command += ["--model", str(tmp_path / "student.onnx"), "--data", str(tmp_path / "eyes")]
    command += ["--labels", ",".join(LABELS), "--num-images", "4", "--repeats", "1"]
    command += ["--variants", "ours,ours 1 thread,ort percentile", "--accuracy-images", "12"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    report = json.loads(done.stdout)
    speed = report["speed"]["variants"]
    assert speed["ours 1 thread"]["thresholds_to_ours"] == [1.0, 1.0, 1.0]
    assert speed["ort percentile"]["thresholds_to_ours"][0] == pytest.approx(1, abs=0.01)
    assert all(0 < row["peak_mib"] < 1000 for row in speed.values())
    rows = {row["way"]: row for row in report["accuracy"]}
    assert rows["fp32"]["mean_dp"] == 0.0
    assert rows["ours percentile"]["sqnr_db"] > 20
    # Ranges that agree to one bin give the same model up to single steps.
    assert rows["ort percentile"]["sqnr_db"] == pytest.approx(
        rows["ours percentile"]["sqnr_db"], abs=3
    )
    assert set(rows["ort entropy"]["auroc"]) == {*LABELS, "gradable"}
