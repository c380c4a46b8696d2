"""`evaluate teacher`, `evaluate tasks` and `evaluate compare` as an engineer meets them."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from edge_runtime.commands.group import CommandGroup
from train.cli import pretrain
from train.evaluate_cli import evaluate
from train.tasks.registry import TASKS

main = CommandGroup(name="edge-screen", commands=[pretrain, evaluate])
QUICK = ("--budgets", "8", "--readouts", "probe", "--num-draws", 100)


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def data_dir(phantom_dir, tmp_path_factory):
    """The phantom with 6, 2 and 4 patients a split, and both values of every label."""
    folder = tmp_path_factory.mktemp("tasks") / "data"
    shutil.copytree(phantom_dir, folder)
    with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])
    patients = sorted({row["patient_id"] for row in rows})
    for number, row in enumerate(rows):
        position = patients.index(row["patient_id"])
        row["split"] = ("train", "val", "test")[(position >= 6) + (position >= 8)]
        for k, label in enumerate(names[names.index("lesions") + 1 :]):
            row[label] = str(int((number + k) % 3 > 0 if label == "gradable" else (number + k) % 2))
    with (folder / "index.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def encoder_dir(data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("encoder") / "encoder"
    arguments = ("--data", data_dir, "--out", out, "--num-steps", 1, "--size-px", 32)
    run("pretrain", *arguments, "--routes", "cfp_only")
    return out


@pytest.mark.parametrize("name", ["teacher", "tasks", "compare"])
def test_help_shows_an_example_and_every_option(name):
    text = run("evaluate", name, "--help").output
    assert f"edge-screen evaluate {name} " in text
    for option in ("--seed", "--num-draws", "--json", "--help"):
        assert option in text


def test_importing_the_commands_does_not_import_torch():
    code = "import sys, train.evaluate_cli; sys.exit(bool({'torch', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_arms_from_checkpoints_to_a_comparison(data_dir, encoder_dir, tmp_path):
    names = ("--tasks", "glaucoma,laterality,few_shot_edema")
    options = ("--data", data_dir, *names, *QUICK)
    done = run("evaluate", "tasks", encoder_dir, *options, "--out", tmp_path / "a")
    assert "synthetic phantom eyes, no patients" in done.stdout
    assert done.stdout.endswith("research use only; not a medical device\n")
    for part in ("glaucoma", "probe", "AUROC", "k=1", "not measured: task 'few_shot_edema': 32"):
        assert part in done.stdout
    untrained = ("evaluate", "tasks", "--untrained", "--size-px", 32, *options)
    record = json.loads(run(*untrained, "--out", tmp_path / "b", "--json").stdout)
    assert record["data"]["synthetic"] is True
    assert {row["task"] for row in record["results"]} == {
        "glaucoma",
        "laterality",
        "few_shot_edema",
    }
    text = run("evaluate", "compare", tmp_path / "a", tmp_path / "b", "--num-draws", 100).stdout
    assert "A - B" in text
    assert "synthetic phantom eyes, no patients" in text
    arguments = ("evaluate", "compare", tmp_path / "a", tmp_path / "b", "--num-draws", 100)
    rows = json.loads(run(*arguments, "--json").stdout)["rows"]
    assert {row["task"] for row in rows} == {"glaucoma", "laterality", "few_shot_edema"}
    assert all(row["p_value"] <= row["p_holm"] <= 1 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the folder of a checkpoint, or --untrained"),
        (("--untrained", "--budgets", "100,many"), "'100,many' is no list of numbers"),
        (("--untrained", "--budgets", "300,100"), "ascending numbers"),
        (("--untrained", "--readouts", "knn"), "choose among"),
        (("--untrained", "--num-draws", 99), "99 is not in the range x>=100"),
        (("--untrained", "--size-px", 33), "size_px is 33"),
        (("--untrained", "--num-masks", -1), "-1 is not in the range x>=0"),
    ],
)
def test_settings_out_of_range_end_with_2(data_dir, arguments, message):
    assert message in run("evaluate", "tasks", "--data", data_dir, *arguments, code=2).stderr


def test_a_checkpoint_and_untrained_exclude_each_other(data_dir, encoder_dir):
    arguments = ("evaluate", "tasks", encoder_dir, "--untrained", "--data", data_dir)
    assert "and not both" in run(*arguments, code=2).stderr


def test_a_checkpoint_brings_its_size_and_its_own_retrieval_heads(data_dir, encoder_dir, tmp_path):
    arguments = ("evaluate", "tasks", encoder_dir, "--size-px", 32, "--data", data_dir)
    assert "a checkpoint has its own size" in run(*arguments, code=2).stderr
    out, data = tmp_path / "match", ("--data", data_dir)
    options = ("--num-steps", 1, "--size-px", 32, "--routes", "contrastive")
    run("pretrain", *data, "--out", out, *options)
    names = ("--tasks", "cfp_to_oct", *QUICK, "--json")
    for folder, expected in ((out, {"ridge", "zero_shot"}), (encoder_dir, {"ridge"})):
        record = json.loads(run("evaluate", "tasks", folder, *data, *names).stdout)
        assert {row["readout"] for row in record["results"]} == expected
        assert record["pretrained_on_other_data"] is False


def test_photographs_alone_are_measured_and_retrieval_says_why_not(data_dir, encoder_dir, tmp_path):
    folder = tmp_path / "photographs"
    shutil.copytree(data_dir, folder)
    with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = [{**row, "oct_h": "", "oct_v": ""} for row in csv.DictReader(file)]
    with (folder / "index.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    arguments = ("--data", folder, *QUICK, "--tasks", "glaucoma,cfp_to_oct")
    done = run("evaluate", "tasks", encoder_dir, *arguments)
    assert "step 1/3  probes" in done.stderr
    text = done.stdout
    assert "note: the encoder was pretrained on another data set" in text
    assert "not measured: retrieval needs B-scans in every split" in text
    assert "glaucoma         probe" in text


def test_an_unknown_task_is_answered_with_the_sixteen(data_dir):
    arguments = ("--untrained", "--size-px", 32, "--data", data_dir, "--tasks", "cataract")
    text = run("evaluate", "tasks", *arguments, code=2).stderr
    assert all(name in text for name in TASKS)


def test_folders_that_hold_no_run_or_no_checkpoint_are_refused(data_dir, tmp_path):
    missing = run("evaluate", "tasks", tmp_path, "--data", data_dir, code=7)
    assert "has no config.json" in missing.stderr
    assert "has no results.json" in run("evaluate", "compare", tmp_path, tmp_path, code=6).stderr
