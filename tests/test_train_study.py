"""The study: what the arms are, which cells are done once, and how a verdict is reached."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tasks_factory import QUICK, task_data
from training_factory import TINY_ENCODER, TINY_TARGET, tiny_config

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.metrics import Interval
from train.device import device_of
from train.engine.loop import PretrainLoop
from train.routes import route_table
from train.study import cells as cells_module
from train.study.arms import (
    ABLATIONS,
    ARMS,
    REFERENCE,
    UNTRAINED,
    ControlSettings,
    ablation_config,
    arm_config,
)
from train.study.cells import Cell, CellRecord, finish_cell, read_cell
from train.study.cli import study
from train.study.plan import study_cells
from train.study.presets import PRESETS, StudyPreset, preset
from train.study.report import write_report
from train.study.summary import StudyResults, collect, mean_and_sd, verdicts
from train.tasks.compare import compare_runs
from train.tasks.registry import TASKS
from train.tasks.results import Measurement, TaskRun, result_of
from train.tasks.run_files import load_run, save_run
from train.tasks.weighted_metrics import ScoredEyes

BASE = tiny_config(num_steps=4, routes=route_table("oct_first"))
CONTROL = ControlSettings(batch_size=12, learning_rate=0.007)
QUICK_TASKS = ("glaucoma", "laterality")


def _changed(a, b):
    """Names of the settings in which two configs differ."""
    first, second = asdict(a), asdict(b)
    return {name for name in first if first[name] != second[name]}


# Arms and ablations ---------------------------------------------------------------------


def test_arms_differ_in_what_they_are_named_after_and_in_nothing_else():
    changed = {
        name: _changed(BASE, arm_config(name, BASE, control=CONTROL))
        for name in ARMS
        if name != UNTRAINED
    }
    assert changed == {
        REFERENCE: set(),
        "cfp_weighted": {"routes"},
        "cfp_only": {"routes", "batch_size", "learning_rate"},
        "shuffled_oct": {"shuffle_oct"},
        "joint": {"routes"},
        "contrastive": {"routes"},
    }
    assert arm_config(UNTRAINED, BASE, control=CONTROL) is None
    cfp_only = arm_config("cfp_only", BASE, control=CONTROL)
    assert (cfp_only.batch_size, cfp_only.learning_rate) == (12, 0.007)


def test_each_ablation_changes_one_setting():
    changed = {name: _changed(BASE, ablation_config(name, BASE)) for name in ABLATIONS}
    assert changed.pop("as the method") == set()
    assert all(len(names) == 1 for names in changed.values()), changed
    configs = [json.dumps(asdict(ablation_config(name, BASE))) for name in ABLATIONS]
    assert len(set(configs)) == len(configs)


def test_ablations_cover_what_the_method_claims():
    """Routes, the four structural switches, mask ratio, target, depth, and pairs."""
    configs = [ablation_config(name, BASE) for name in ABLATIONS]
    switches = {
        name
        for config in configs
        for name, value in asdict(config.structure).items()
        if value != asdict(BASE.structure)[name]
    }
    assert switches == {"hide_weight", "attention", "loss_alpha", "target_weight"}
    assert {c.decoder_depth for c in configs} > {1}
    assert any(c.num_paired for c in configs)
    assert {c.oct_target.kind for c in configs} == {"flattened", "raw"}
    left_out = {r.name for r in BASE.routes}
    assert {frozenset(left_out - {r.name for r in c.routes}) for c in configs} >= {
        frozenset({"cfp<-cfp"}),
        frozenset({"oct<-oct"}),
    }


def test_unknown_names_are_refused_with_the_choices():
    with pytest.raises(ConfigError, match=r"arm 'best' is unknown; choose from oct_informed"):
        arm_config("best", BASE, control=CONTROL)
    with pytest.raises(ConfigError, match=r"ablation 'x' is unknown"):
        ablation_config("x", BASE)
    with pytest.raises(ConfigError, match=r"preset 'huge' is unknown; choose from pulse, cpu"):
        preset("huge")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ("oct_informed", "cfp_only", "x")}, r"names \['x'\]"),
        ({"ablations": ("y",)}, r"names \['y'\]"),
        ({"arms_on_every_seed": ("oct_informed",)}, "needs oct_informed, cfp_weighted, cfp_only"),
        ({"seeds": ()}, "give distinct ones"),
        ({"seeds": (1, 1)}, "give distinct ones"),
    ],
)
def test_a_study_that_could_not_judge_the_claim_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(preset("pulse"), **changes)


def test_the_control_computes_at_least_as_much_as_the_method():
    """Photographs encoded a step, masked or whole; the OCT encoder is not even counted."""
    for one in PRESETS.values():
        method = one.base(0)
        encoded = sum(
            route.batch_share for route in method.routes if route.name == "cfp<-cfp"
        ) + any(route.sources == ("cfp",) and route.mask_ratio == 0 for route in method.routes)
        assert one.control.batch_size >= encoded * one.batch_size, one.name


# Cells ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    return task_data()


def _cell(**changes):
    base = {
        "group": "arms",
        "arm": REFERENCE,
        "seed": 3,
        "pretrain": replace(BASE, seed=3),
        "encoder": TINY_ENCODER,
        "settings": replace(QUICK, readouts=("probe",)),
        "tasks": QUICK_TASKS,
    }
    return Cell(**{**base, **changes})


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    root = tmp_path_factory.mktemp("cells")
    return root, finish_cell(_cell(), root, data)


def test_the_folder_depends_on_every_setting_and_on_the_data(tmp_path):
    cell = _cell()
    others = [
        _cell(seed=4),
        _cell(group="ablations"),
        _cell(pretrain=replace(BASE, seed=3, num_steps=5)),
        _cell(settings=replace(QUICK, num_draws=200)),
        _cell(tasks=None),
    ]
    folders = {one.folder(tmp_path, "0" * 64) for one in (cell, *others)}
    folders.add(cell.folder(tmp_path, "1" * 64))
    assert len(folders) == 5  # the two that only measure otherwise share the encoder
    measured = {one.tasks_folder(tmp_path, "0" * 64) for one in (cell, *others)}
    assert len(measured) == 6
    assert cell.folder(tmp_path, "0" * 64) == _cell().folder(tmp_path, "0" * 64)


def test_every_cell_of_every_preset_has_a_folder_of_its_own(tmp_path):
    for one in PRESETS.values():
        cells = study_cells(one)
        assert len({cell.folder(tmp_path, "0") for cell in cells}) == len(cells)
        in_parts = study_cells(one, ("arms",)) + study_cells(one, ("ablations",))
        assert {c.folder(tmp_path, "0") for c in in_parts} == {
            c.folder(tmp_path, "0") for c in cells
        }
        assert len(in_parts) == len(cells)
        for name in one.arms_on_every_seed:
            assert {c.seed for c in cells if (c.group, c.arm) == ("arms", name)} == set(one.seeds)


def test_a_finished_cell_has_its_figures_and_is_read_not_computed(finished, data, monkeypatch):
    root, record = finished
    assert set(record.seconds) == {"pretrain", "waiting", "tasks"}
    assert record.controls["gradient_leak"] == 0 < record.controls["gradient_leak_control"]
    assert record.losses["skipped_steps"] == 0
    assert {row.task for row in load_run(record.folder).results} == set(QUICK_TASKS)
    assert not (record.folder.parent / "states").exists()

    def never(*_, **__):
        raise AssertionError("computed again")

    for name in ("pretrain", "run_tasks"):
        monkeypatch.setattr(cells_module, name, never)
    assert finish_cell(_cell(), root, data) == record


def test_an_interrupted_cell_goes_on_and_ends_as_if_it_had_not_stopped(
    finished, data, monkeypatch, tmp_path
):
    _, whole = finished
    monkeypatch.setattr(cells_module, "_SAVE_EVERY", 1)
    plain, calls = PretrainLoop._one_step, []

    def stops_at_the_third(self, batches):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return plain(self, batches)

    monkeypatch.setattr(PretrainLoop, "_one_step", stops_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        finish_cell(_cell(), tmp_path, data)
    assert read_cell(_cell().tasks_folder(tmp_path, data.train.fingerprint)) is None
    monkeypatch.setattr(PretrainLoop, "_one_step", plain)
    record = finish_cell(_cell(), tmp_path, data)
    assert record.losses == whole.losses
    weights = [one.folder.parent / "encoder" / "model.safetensors" for one in (record, whole)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    ours, theirs = load_run(record.folder), load_run(whole.folder)
    for key, eyes in ours.predictions.items():
        np.testing.assert_array_equal(eyes.scores, theirs.predictions[key].scores)


def test_an_untrained_cell_has_no_checkpoint(data, tmp_path):
    record = finish_cell(_cell(arm=UNTRAINED, pretrain=None), tmp_path, data)
    assert set(record.seconds) == {"tasks"}
    assert record.controls == record.losses == {}
    assert not (record.folder.parent / "encoder").exists()


def test_a_matching_arm_is_measured_by_its_own_heads(data, tmp_path):
    config = replace(arm_config("contrastive", BASE, control=CONTROL), oct_target=TINY_TARGET)
    cell = _cell(arm="contrastive", pretrain=config, tasks=("cfp_to_oct",))
    run = load_run(finish_cell(cell, tmp_path, data).folder)
    assert {row.readout for row in run.results} == {"ridge", "zero_shot"}


# Verdicts -------------------------------------------------------------------------------


def _run(seed, quality, *, chance=None):
    """Every task scored with `quality`[task]: 0 = guessing, large = perfect; a row a readout."""
    rng = np.random.default_rng([7, seed])
    patients = np.array([f"P{i // 2:03d}" for i in range(400)])
    measured = []
    for task, spec in TASKS.items():
        strength = quality.get(task, 1.0)
        if spec.metric == "mean":
            truth = np.zeros(400, np.float32)
            scores = np.clip(0.2 * strength + 0.05 * rng.normal(size=400), 0, 1)
            readouts = [("ridge" if spec.kind == "retrieval" else "decoder", 0)]
        else:
            classes = 5 if spec.metric == "quadratic_kappa" else 2
            truth = rng.integers(0, classes, 400).astype(np.float32)
            scores = strength * truth + rng.normal(size=400)
            if classes == 5:
                scores = np.clip(np.round(scores), 0, 4)
            few = spec.kind == "few_shot"
            readouts = [("few_shot", 8)] if few else [("probe", 100), ("finetune", 100)]
        eyes = ScoredEyes(patient_ids=patients, truth=truth, scores=scores[None].astype(np.float32))
        measured += [
            Measurement(
                task=task,
                readout=readout,
                num_labels=n,
                eyes=eyes,
                chance=0.01 if spec.kind == "retrieval" else chance,
            )
            for readout, n in readouts
        ]
    return TaskRun(
        results=tuple(result_of(one, num_draws=100, seed=0) for one in measured),
        predictions={one.key: one.eyes for one in measured},
        seed=seed,
        settings={},
        data_fingerprint="0" * 64,
        seconds=1.0,
        cpu_seconds={},
        synthetic=True,
    )


GOOD = dict.fromkeys(("macular_edema", "myopic_schisis", "glaucoma"), 3.0)
WEAK = {
    **dict.fromkeys(("macular_edema", "myopic_schisis", "glaucoma"), 0.2),
    **dict.fromkeys(("vessels", "disc", "cup", "lesions", "cfp_to_oct", "oct_to_cfp"), 0.5),
}


@pytest.fixture
def records(tmp_path):
    """A study in which everything is reached; a test spoils one arm of it."""

    def write(arm, seed, quality, **controls):
        folder = tmp_path / f"{arm}-{seed}"
        save_run(folder, _run(seed, quality))
        return CellRecord(
            folder=folder,
            identity={"group": "arms", "arm": arm, "seed": seed},
            seconds={"pretrain": 10.0, "waiting": 0.1, "tasks": 1.0},
            losses={},
            controls=controls,
        )

    def build(**qualities):
        arms = {REFERENCE: GOOD, "cfp_only": WEAK, "shuffled_oct": WEAK, UNTRAINED: WEAK}
        leak = {"gradient_leak": 0.0, "gradient_leak_control": 1e-3}
        return [
            write(arm, seed, {**quality, **qualities.get(arm, {})}, **leak)
            for arm, quality in arms.items()
            for seed in (1, 2)
        ]

    return build


def _missed(records):
    found = verdicts(collect(records), budgets=(100,))
    return [one.asked for one in found if not one.reached]


def test_a_study_that_reaches_everything_says_so(records):
    assert _missed(records()) == []


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({REFERENCE: {"macular_edema": 0.3}}, "macular_edema, probe: gain"),
        ({REFERENCE: {"glaucoma": 0.1}}, "glaucoma, probe: gain"),
        ({REFERENCE: {"amd": 0.1}}, "no task worse than CFP-only"),
        ({"shuffled_oct": {"glaucoma": 3.0}}, "shuffled control gains nothing"),
        ({REFERENCE: {"lesions": 0.2}}, "segmentation better than without"),
        ({REFERENCE: {"cfp_to_oct": 0.2}}, "retrieval at least 10 times chance"),
    ],
)
def test_every_verdict_can_fail(records, spoiled, message):
    missed = _missed(records(**spoiled))
    assert any(message in asked for asked in missed), missed


def test_a_leak_and_a_slow_loader_are_not_reached(records):
    study_records = records()
    leaky = replace(
        study_records[0], controls={"gradient_leak": 1e-9, "gradient_leak_control": 1e-3}
    )
    slow = replace(study_records[1], seconds={"pretrain": 10.0, "waiting": 1.1, "tasks": 1.0})
    missed = _missed([leaky, slow, *study_records[2:]])
    assert [asked.split()[0] for asked in missed] == ["gradient", "data"]


def test_a_claim_that_was_not_measured_on_every_seed_is_not_reached(records):
    study_records = [
        r for r in records() if (r.identity["arm"], r.identity["seed"]) != (REFERENCE, 2)
    ]
    results = collect(study_records)
    assert list(results.differences["cfp_only"]) == [1]
    (first, *_) = verdicts(results, budgets=(100, 300))
    assert not first.reached


def test_differences_are_paired_within_a_seed(records):
    results = collect(records())
    assert isinstance(results, StudyResults)
    (row, _) = results.by_seed("cfp_only", "glaucoma/probe/100")
    runs = results.arms
    (expected,) = (
        one
        for one in compare_runs(runs[REFERENCE][1], runs["cfp_only"][1])
        if (one.task, one.readout) == ("glaucoma", "probe")
    )
    assert row == expected


def test_values_over_seeds_in_words():
    assert mean_and_sd(()) == "-"
    assert mean_and_sd((0.5,)) == "0.500"
    assert mean_and_sd((0.4, 0.6)) == "0.500 (0.141)"


def test_the_report_calls_every_table_synthetic_and_its_pictures_are_svg(records, tmp_path):
    small = replace(preset("pulse"), budgets=(100,), seeds=(1, 2))
    study_records = records()
    judged = write_report(small, study_records, tmp_path / "out", command="edge-screen study")
    page = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    tables = [line for line in headings if "Cost" not in line and "Not run" not in line]
    assert len(tables) >= 5
    assert all("synthetic" in line or line == "## Ablations" for line in tables), tables
    for task in TASKS:
        assert task in page
    for one in judged:
        assert one.asked in page
    for name in ("labels.svg", "differences.svg"):
        assert f"]({name})" in page
        root = ElementTree.fromstring((tmp_path / "out" / name).read_text(encoding="utf-8"))
        assert root.tag.endswith("svg")
        assert "synthetic" in root[0].text
    stored = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert len(stored["cells"]) == len(study_records)
    value = stored["differences"]["cfp_only"]["1"]["glaucoma/probe/100"]["interval"]["value"]
    assert f"{value:+.3f}" in page
    assert Interval(**stored["arms"][REFERENCE]["1"]["results"][0]["interval"]).level == 0.95


# The command ----------------------------------------------------------------------------


def test_what_is_not_finished_is_named_on_the_page(records, tmp_path):
    small = replace(preset("pulse"), budgets=(100,), seeds=(1, 2))
    write_report(small, records(), tmp_path, command="x", missing=("joint, seed 1",))
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "**Not finished, and not in any table:** joint, seed 1." in page
    only = [one for one in records() if one.identity["arm"] == "cfp_only"]
    with pytest.raises(DataError, match="finished are only cfp_only; a report needs oct_informed"):
        write_report(small, only, tmp_path, command="x")


def test_reporting_on_a_study_that_was_not_begun_is_refused(tmp_path):
    call = ["--preset", "pulse", "--out", str(tmp_path), "--finished-only"]
    result = CliRunner().invoke(study, call)
    assert isinstance(result.exception, DataError)
    assert "no study was begun there" in str(result.exception)


@pytest.mark.slow
def test_the_pulse_study_runs_whole_and_then_only_reads(tmp_path):
    call = ["--preset", "pulse", "--out", str(tmp_path / "study"), "--json"]
    first = CliRunner().invoke(study, call)
    assert first.exit_code == 0, first.output
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("cell.json")}
    assert len(kept) == len(study_cells(preset("pulse")))
    second = CliRunner().invoke(study, call)
    assert second.stdout == first.stdout
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_folder_of_another_study_is_refused(tmp_path):
    (tmp_path / "data.json").write_text('{"patients": 1, "seed": 2, "image_px": 128}')
    result = CliRunner().invoke(study, ["--preset", "pulse", "--out", str(tmp_path)])
    assert isinstance(result.exception, DataError)
    assert "holds a study on other eyes" in str(result.exception)


def test_the_gpu_preset_is_for_a_gpu_and_never_falls_back(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = CliRunner().invoke(study, ["--preset", "gpu", "--out", str(tmp_path / "new")])
    assert isinstance(result.exception, ConfigError)
    assert "sees no CUDA device" in str(result.exception)
    assert not (tmp_path / "new").exists()


def test_a_cell_runs_every_network_where_it_is_told_to(data, monkeypatch, tmp_path):
    seen = []

    def noting(name):
        plain = getattr(cells_module, name)

        def call(*arguments, **options):
            seen.append((name, options.get("device") or device_of(arguments[0])))
            return plain(*arguments, **options)

        return call

    for name in ("pretrain", "run_tasks", "gradient_leak"):
        monkeypatch.setattr(cells_module, name, noting(name))
    place = torch.device("cpu")
    record = finish_cell(_cell(), tmp_path, data, device=place)
    assert record.device == "cpu"
    assert [name for name, _ in seen] == ["pretrain", "gradient_leak", "run_tasks"]
    assert all(where == place for _, where in seen)
    assert seen[0][1] is place
    assert read_cell(record.folder) == record


def test_presets_say_what_they_cost():
    assert isinstance(PRESETS["cpu"], StudyPreset)
    assert all(len(one.cost) > 20 for one in PRESETS.values())
