"""The demo from its folder to its report: what it may delete, and the whole chain once, small."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from gate_factory import gate_report

from calibration.config import CalibrationConfig
from calibration.gate import GateLimits
from distill.stage import distill_checkpoint
from distill.student import StudentConfig
from distill.teaching import DistillConfig
from edge_runtime.checks.verify import verify_bundle
from edge_runtime.errors import ConfigError, GateRefusedError
from export.demo import chain
from export.demo.arms import train_arms
from export.demo.chain import DemoRun, prepare_folder, require_usable
from export.demo.cli import demo as demo_command
from export.demo.model import ARMS, DemoReport
from export.demo.presets import DemoPreset, preset
from export.demo.report import read_report
from train.data.index import read_index
from train.dataset_arrays import load_split

SIZE = DemoPreset(
    name="smoke",
    cost="seconds",
    num_patients=400,
    pretrain_steps=4,
    head_steps=20,
    finetune_steps=10,
    distill_steps=10,
    num_probe_labels=200,
    num_camera_pictures=4,
    camera_width_px=1200,
    min_val_eyes=2,
    num_int8_images=16,
    bench_repeats=3,
)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class TestPrepareFolder:
    """Only what a demo wrote is deleted."""

    @pytest.mark.parametrize("exists", [False, True])
    def test_a_new_or_empty_folder_is_taken(self, tmp_path: Path, exists: bool) -> None:
        out = tmp_path / "runs" / "demo"
        if exists:
            out.mkdir(parents=True)
        prepare_folder(out, preset("smoke"), 3)
        assert [path.name for path in out.iterdir()] == ["demo.json"]
        marker = json.loads((out / "demo.json").read_text())
        assert marker["seed"] == 3
        assert marker["num_patients"] == preset("smoke").num_patients

    def test_an_earlier_demo_is_replaced(self, tmp_path: Path) -> None:
        prepare_folder(tmp_path, preset("smoke"), 0)
        (tmp_path / "data" / "cfp").mkdir(parents=True)
        (tmp_path / "data" / "cfp" / "P000000_OD.png").write_bytes(b"old")
        (tmp_path / "report.json").write_text("{}")
        prepare_folder(tmp_path, preset("small"), 1)
        assert list(content(tmp_path)) == ["demo.json"]
        assert json.loads((tmp_path / "demo.json").read_text())["name"] == "small"

    @pytest.mark.parametrize(
        "marker", [None, "", "{", "[]", '"edge-screen demo"', '{"seed": 0, "name": "smoke"}']
    )
    def test_a_foreign_folder_is_left_alone(self, tmp_path: Path, marker: str | None) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "thesis.txt").write_text("mine")
        if marker is not None:
            (tmp_path / "demo.json").write_text(marker)
        before = content(tmp_path)
        with pytest.raises(ConfigError, match=r"not an earlier demo.*--out"):
            prepare_folder(tmp_path, preset("smoke"), 0)
        assert content(tmp_path) == before

    def test_a_demo_with_something_foreign_in_it_is_left_alone(self, tmp_path: Path) -> None:
        prepare_folder(tmp_path, preset("smoke"), 0)
        (tmp_path / "notes.txt").write_text("mine")
        before = content(tmp_path)
        with pytest.raises(ConfigError, match="not an earlier demo"):
            prepare_folder(tmp_path, preset("smoke"), 0)
        assert content(tmp_path) == before


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--workers", "-1"], ["--scale", "huge"]])
def test_bad_arguments_end_before_anything_is_deleted(tmp_path: Path, arguments: list[str]) -> None:
    prepare_folder(tmp_path, preset("smoke"), 0)
    before = content(tmp_path)
    outcome = CliRunner().invoke(demo_command, ["--out", str(tmp_path), *arguments])
    assert outcome.exit_code == 2
    assert content(tmp_path) == before


@pytest.mark.parametrize("status", ["passed", "not_shown"])
def test_a_gate_that_did_not_fail_lets_the_demo_end_well(tmp_path: Path, status: str) -> None:
    require_usable(gate_report(("glaucoma",), status), tmp_path / "report.html")


def test_a_failed_gate_ends_the_demo_after_its_report(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    with pytest.raises(GateRefusedError, match=r"report\.html shows what INT8 cost") as told:
        require_usable(gate_report(("glaucoma",), "failed"), page)
    assert told.value.exit_code == 8


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoReport, list[str]]:
    """The whole chain. Ten steps teach nothing, so the gate is told to let INT8 lose much."""
    out, said = tmp_path_factory.mktemp("demo") / "out", []
    wide = GateLimits(max_auroc_drop=1.0, max_sensitivity_drop=1.0, max_specificity_drop=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain, "CalibrationConfig", partial(CalibrationConfig, limits=wide))
        prepare_folder(out, SIZE, 0)
        report = DemoRun(out, SIZE, seed=0, workers=2, say=said.append).run()
    return out, report, said


@pytest.mark.slow
class TestWholeChain:
    """From phantom to decision. Few steps: this is about the plumbing, not about the figures."""

    def test_the_report_reads_back_and_has_everything(self, finished) -> None:
        out, report, _ = finished
        assert read_report(out / "report.json") == report
        page = (out / "report.html").read_text(encoding="utf-8")
        assert "not a medical device" in page
        assert report.synthetic
        assert set(report.pretraining.arms) == set(ARMS)
        assert report.pretraining.gradient_leak == 0.0
        assert report.pretraining.gradient_leak_control > 0.0
        assert report.data.num_patients == SIZE.num_patients
        assert sum(report.data.num_eyes.values()) == 2 * SIZE.num_patients
        stages = ["phantom", "load", "pretrain", "finetune", "distill", "export", "calibrate"]
        assert list(report.duration_s) == [*stages, "evaluate", "screen"]
        assert [row.latency_ms is None for row in report.models] == [True, False, False]

    def test_the_bundle_verifies(self, finished) -> None:
        out, _, _ = finished
        verified = verify_bundle(out / "bundle", trusted_keys=out / "trusted_keys")
        verified.raise_if_failed()
        names = {check.name for check in verified.checks}
        assert names >= {"signature", "hashes", "preprocessing", "golden fp32", "golden int8"}

    def test_pictures_are_decided_and_no_damaged_file_is_no_refer(self, finished) -> None:
        _, report, _ = finished
        screening = report.screening
        assert screening.num_pictures == SIZE.num_camera_pictures
        assert sum(screening.dispositions.values()) == SIZE.num_camera_pictures
        files = screening.unreadable_files
        assert files.num >= 7 * SIZE.num_camera_pictures
        assert files.num_no_refer == 0
        assert files.num_control_no_refer > 0

    def test_only_test_eyes_are_screened(self, finished) -> None:
        out, _, _ = finished
        with (out / "data" / "camera" / "index.csv").open(newline="", encoding="utf-8") as stream:
            screened = {row["patient_id"] for row in csv.DictReader(stream)}
        test = {visit.patient_id for visit in read_index(out / "data").split("test")}
        assert screened
        assert screened <= test

    def test_a_second_demo_may_take_its_place(self, finished) -> None:
        """Everything that a demo leaves behind is known to `prepare_folder`."""
        out, _, _ = finished
        assert chain._is_demo(out)

    def test_every_stage_says_what_it_does(self, finished) -> None:
        _, report, said = finished
        for stage in report.duration_s:
            assert f"{stage} ..." in said
        assert any("of an output's range" in line for line in said)

    def test_the_distill_stage_gives_the_demos_student(self, finished, tmp_path) -> None:
        """The command and the demo are one chain, and it gives the same weights twice."""
        out, _, _ = finished
        config = DistillConfig(
            student=StudentConfig(size_px=SIZE.size_px), num_steps=SIZE.distill_steps, seed=0
        )
        distill_checkpoint(out / "teacher", out / "data", tmp_path / "student", config)
        weights = [
            (folder / "student" / "model.safetensors").read_bytes() for folder in (out, tmp_path)
        ]
        assert weights[0] == weights[1]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_student(tmp_path: Path) -> None:
    """Phantom to student twice, as the demo goes; a third time with another seed."""
    size = DemoPreset(
        name="smoke",
        cost="seconds",
        num_patients=60,
        pretrain_steps=2,
        head_steps=2,
        finetune_steps=2,
        distill_steps=2,
        num_camera_pictures=0,
    )
    weights = []
    for name, seed in (("first", 5), ("second", 5), ("other", 6)):
        run = DemoRun(tmp_path / name, size, seed=seed, workers=1, say=str)
        run._phantom()
        train = load_split(read_index(run.data), "train", size_px=size.size_px, with_oct=True)
        train_arms(train, size, seed, run.out / "encoders", run._steps)
        run._finetune(train)
        run._distill(train)
        weights.append((run.out / "student" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]
