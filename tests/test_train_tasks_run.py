"""A whole run: sixteen rows and more, on disk and back, compared with another arm."""

from __future__ import annotations

import json
import types
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from tasks_factory import QUICK, task_data
from training_factory import FIELD_ENCODER, TINY_ENCODER

from edge_runtime.errors import ConfigError, DataError
from train.encoder import CfpEncoder
from train.tasks import run as run_module
from train.tasks.compare import compare_runs, summarize_seeds
from train.tasks.registry import TASKS
from train.tasks.run import run_tasks
from train.tasks.run_files import load_run, save_run
from train.tasks.table import comparison_lines, run_lines


@dataclass
class Segmented:
    """What `train.tasks.segmentation` returns for one target."""

    target: str
    dice_n: np.ndarray
    hd95_n: np.ndarray
    cldice_n: np.ndarray | None
    false_positive_n: np.ndarray
    num_images: int
    patient_ids: np.ndarray
    seconds: float


def fake_segmentation(**changes):
    """The segmentation module's interface, without its networks."""
    module = types.ModuleType("train.tasks.segmentation")
    module.SegmentationSettings = dict

    def run_segmentation(encoder, data, _settings, *, targets, device, **_options):
        assert device == next(encoder.parameters()).device  # else it would be the CPU
        num = len(data.test)
        return {
            target: Segmented(
                target=target,
                dice_n=np.linspace(0, 1, num),
                hd95_n=np.where(np.arange(num) < 4, np.nan, 2.0),
                cldice_n=np.full(num, 0.5) if target == "vessels" else None,
                false_positive_n=np.where(np.arange(num) < 4, 0.25, np.nan),
                num_images=num,
                patient_ids=data.test.patient_ids,
                seconds=0.25,
            )
            for target in targets
        }

    module.run_segmentation = changes.get("run_segmentation", run_segmentation)
    return module


@pytest.fixture(scope="module")
def data():
    return task_data()


def encoder_of(seed):
    torch.manual_seed(seed)
    return CfpEncoder(TINY_ENCODER).eval()


@pytest.fixture(scope="module")
def runs(data):
    """Two arms, of other encoders and one seed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "run_segmentation", fake_segmentation().run_segmentation)
        return tuple(run_tasks(encoder_of(k), data, QUICK, seed=0) for k in (0, 1))


def test_all_sixteen_tasks_in_the_order_of_the_registry(runs):
    run = runs[0]
    assert list(dict.fromkeys(row.task for row in run.results)) == list(TASKS)
    # 8 tasks x 2 budgets x 2 readouts, 4 masks, 2 x 2 shots, 2 directions.
    assert len(run.results) == 32 + 4 + 4 + 2
    assert run.predictions.keys() == {row.key for row in run.results}
    for row in run.results:
        assert row.note == ""
        assert row.interval.low <= row.interval.high
        assert row.num_patients <= 40
        assert row.seconds >= 0
    assert run.seconds > 0
    assert not run.synthetic


def test_segmentation_rows_hold_all_three_metrics(runs):
    vessels, disc = (runs[0].result(name, "decoder") for name in ("vessels", "disc"))
    assert vessels.interval.value == pytest.approx(0.5)
    assert (vessels.metric, vessels.chance, vessels.seconds) == ("Dice", None, 0.25)
    assert vessels.extra == {
        "num_training_masks": 300,
        "hd95": 2,
        "num_with_hd95": 76,
        "cldice": 0.5,
        "num_with_cldice": 80,
        "false_positive": 0.25,
        "num_with_false_positive": 4,
    }
    assert "cldice" not in disc.extra


def test_a_run_repeats_itself(data, runs):
    tasks = ("glaucoma", "cfp_to_oct", "few_shot_edema")
    again = run_tasks(encoder_of(0), data, QUICK, seed=0, tasks=tasks)
    assert {row.task for row in again.results} == set(tasks)
    for row in again.results:
        same = runs[0].result(row.task, row.readout, row.num_labels)
        assert replace(row, seconds=0) == replace(same, seconds=0)
    other = run_tasks(encoder_of(0), data, QUICK, seed=1, tasks=["glaucoma"])
    assert other.results[0].interval != again.results[0].interval


def test_readouts_and_progress(data):
    seen = []
    run = run_tasks(
        encoder_of(0),
        data,
        replace(QUICK, readouts=("probe",)),
        seed=0,
        tasks=["amd", "oct_to_cfp"],
        progress=lambda *step: seen.append(step),
    )
    assert {row.readout for row in run.results} == {"probe", "ridge"}
    stages = ["features", "probes", "retrieval", "intervals"]
    assert seen == [(number, 3, name) for number, name in enumerate(stages)]
    assert list(run.cpu_seconds) == stages
    assert all(value >= 0 for value in run.cpu_seconds.values())


def test_a_stage_that_cannot_run_is_a_note_and_the_others_are_measured(data, monkeypatch):
    def broken(*_args, **_options):
        raise DataError("no visit has the mask 'disc'")

    module = fake_segmentation(run_segmentation=broken)
    monkeypatch.setattr(run_module, "run_segmentation", module.run_segmentation)
    run = run_tasks(encoder_of(0), data, QUICK, seed=0, tasks=["disc", "few_shot_edema"])
    assert run.result("disc", "decoder").note == "no visit has the mask 'disc'"
    assert run.result("disc", "decoder").interval is None
    assert run.result("few_shot_edema", "few_shot", 4).interval is not None
    text = "\n".join(run_lines(run))
    assert "not measured: no visit has the mask 'disc'" in text


def test_one_class_among_test_eyes_is_stated(data):
    from tasks_factory import relabeled

    healthy = replace(data, test=relabeled(data.test, "amd", 0))
    run = run_tasks(
        encoder_of(0), healthy, replace(QUICK, readouts=("probe",)), seed=0, tasks=["amd"]
    )
    assert run.results[0].interval is None
    assert "only one class is there" in run.results[0].note
    assert compare_raises(run, run, "no measured row in common")


def compare_raises(a, b, message):
    with pytest.raises(DataError, match=message):
        compare_runs(a, b, num_draws=100)
    return True


def test_a_wrong_task_or_size_is_refused(data):
    with pytest.raises(ConfigError, match=r"no task \['cataract'\]; the tasks are macular_edema"):
        run_tasks(encoder_of(0), data, QUICK, seed=0, tasks=["cataract"])
    with pytest.raises(ConfigError, match="no task named"):
        run_tasks(encoder_of(0), data, QUICK, seed=0, tasks=[])
    with pytest.raises(ConfigError, match="the encoder takes 96 px"):
        run_tasks(CfpEncoder(FIELD_ENCODER).eval(), data, QUICK, seed=0)


def test_a_run_comes_back_from_disk_as_it_was(runs, tmp_path):
    save_run(tmp_path, runs[0])
    back = load_run(tmp_path)
    assert back.results == runs[0].results
    assert (back.settings, back.seed) == (runs[0].settings, runs[0].seed)
    for key, eyes in runs[0].predictions.items():
        for name in ("patient_ids", "truth", "scores"):
            np.testing.assert_array_equal(getattr(back.predictions[key], name), getattr(eyes, name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.npz", "results.json"]
    save_run(tmp_path, runs[1])
    assert load_run(tmp_path).results == runs[1].results


def test_a_damaged_run_is_refused_by_name(runs, tmp_path):
    save_run(tmp_path, runs[0])
    path, text = tmp_path / "results.json", (tmp_path / "results.json").read_text()
    record = json.loads(text)
    for damaged in (
        "{",
        "[]",
        text.replace('"schema_version": 1', '"schema_version": 2'),
        text.replace('"glaucoma"', '"cataract"'),
        json.dumps({**record, "more": 1}),
        json.dumps({**record, "results": record["results"][1:]}),
    ):
        path.write_text(damaged)
        with pytest.raises(DataError, match="is damaged"):
            load_run(tmp_path)
    path.write_text(text)
    (tmp_path / "predictions.npz").write_bytes(b"PK no")
    with pytest.raises(DataError, match="is damaged"):
        load_run(tmp_path)
    np.savez(tmp_path / "predictions.npz", **{"amd/probe/20/truth": np.array([None])})
    with pytest.raises(DataError, match="is damaged"):
        load_run(tmp_path)
    (tmp_path / "predictions.npz").unlink()
    with pytest.raises(DataError, match=r"has no predictions\.npz"):
        load_run(tmp_path)


def test_every_row_is_compared_on_its_own_metric_over_sixteen_tasks(runs):
    found = compare_runs(*runs, num_draws=100)
    assert [(d.task, d.readout, d.num_labels) for d in found] == [
        (r.task, r.readout, r.num_labels) for r in runs[0].results
    ]
    for one in found:
        a, b = (run.result(one.task, one.readout, one.num_labels) for run in runs)
        assert one.interval.value == pytest.approx(a.interval.value - b.interval.value)
        assert one.p_value <= one.p_holm <= 1
        assert one.num_tasks == 16
    dice = next(one for one in found if one.task == "disc")
    assert (dice.interval.low, dice.interval.high, dice.p_value) == (0, 0, 1)
    text = "\n".join(comparison_lines(found))
    assert text.count("\n") == len(found) + 1


def test_an_arm_against_itself_and_the_mirror_of_a_comparison(runs):
    assert all(one.p_value == 1 for one in compare_runs(runs[0], runs[0], num_draws=100))
    for one, back in zip(
        compare_runs(*runs, num_draws=100), compare_runs(*runs[::-1], num_draws=100), strict=True
    ):
        assert one.interval.value == -back.interval.value
        assert one.p_value == pytest.approx(back.p_value)


def test_runs_of_other_data_or_settings_are_not_compared(runs):
    a = runs[0]
    assert compare_raises(a, replace(a, data_fingerprint="1" * 64), "other data sets")
    changed = replace(a, settings={**a.settings, "probe_draws": 3})
    assert compare_raises(a, changed, "differ in probe_draws")
    key = "glaucoma/probe/20"
    eyes = a.predictions[key]
    wrong = replace(eyes, truth=1 - eyes.truth)
    other = replace(a, predictions={**a.predictions, key: wrong})
    assert compare_raises(a, other, "truth of")


def test_seeds_are_summarized_apart(runs):
    second = replace(runs[1], seed=1)
    found = summarize_seeds([runs[0], second])
    key = "glaucoma/probe/20"
    values = [run.result("glaucoma", "probe", 20).interval.value for run in runs]
    assert found[key].mean == pytest.approx(np.mean(values))
    assert found[key].sd == pytest.approx(np.std(values, ddof=1))
    assert len(found) == len(runs[0].results)
    with pytest.raises(DataError, match=r"seeds .* repeat"):
        summarize_seeds(runs)
    with pytest.raises(DataError, match="no run"):
        summarize_seeds([])


def test_the_table_names_every_row_chance_and_further_numbers(runs):
    lines = run_lines(runs[0])
    assert len(lines) == len(runs[0].results) + 2
    text = "\n".join(lines)
    for part in ("k=4", "median rank", "sd over label draws", "HD95 2.000", "clDice 0.500"):
        assert part in text
    masks = [line.split() for line in lines if "decoder" in line]
    assert [words[2] for words in masks] == ["300"] * 4


def test_a_row_that_is_not_there_is_refused(runs):
    with pytest.raises(ConfigError, match="no row 'glaucoma/knn/5'"):
        runs[0].result("glaucoma", "knn", 5)
