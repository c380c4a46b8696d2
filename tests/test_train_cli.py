"""`pretrain`, `finetune` and `evaluate teacher` as an engineer meets them."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from edge_runtime.commands.group import CommandGroup
from train.cli import finetune, pretrain
from train.data.shards import write_shards
from train.evaluate_cli import evaluate

main = CommandGroup(name="edge-screen", commands=[pretrain, finetune, evaluate])


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def data_dir(phantom_dir, tmp_path_factory):
    """The phantom with 8 patients to train, 4 to test, and both values of every label."""
    folder = tmp_path_factory.mktemp("cli") / "data"
    shutil.copytree(phantom_dir, folder)
    with (folder / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0])
    labels = names[names.index("lesions") + 1 :]
    patients = sorted({row["patient_id"] for row in rows})
    for number, row in enumerate(rows):
        row["split"] = "train" if patients.index(row["patient_id"]) < 8 else "val"
        for k, label in enumerate(labels):
            if label != "dr_grade":
                row[label] = str(int((number + k) % 4 > (0 if label == "gradable" else 1)))
    with (folder / "index.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def chain(data_dir, tmp_path_factory):
    """Folders of an encoder and a teacher made through the commands, and what was printed."""
    out = tmp_path_factory.mktemp("chain")
    arguments = ["--data", data_dir, "--num-steps", 2, "--json"]
    own = ("--size-px", 32, "--learning-rate", 4.8e-3)
    first = run("pretrain", *arguments, "--out", out / "encoder", *own)
    second = run("finetune", *arguments, "--out", out / "teacher", "--encoder", out / "encoder")
    return out, json.loads(first.stdout), json.loads(second.stdout)


@pytest.mark.parametrize("name", ["pretrain", "finetune", "evaluate teacher"])
def test_help_shows_an_example_and_every_option(name):
    text = run(*name.split(), "--help").output
    assert f"edge-screen {name} " in text
    for option in ("--data", "--seed", "--device", "--json", "--help"):
        assert option in text


def test_importing_the_commands_does_not_import_torch():
    code = "import sys, train.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_from_triples_to_a_report(data_dir, chain):
    out, pretrained, finetuned = chain
    assert pretrained["out"] == str(out / "encoder")
    assert pretrained["metrics"]["skipped_steps"] == 0
    assert finetuned["out"] == str(out / "teacher")
    assert finetuned["metrics"]["loss"] > 0
    arguments = ["evaluate", "teacher", out / "teacher", "--data", data_dir, "--num-draws", 100]
    report = json.loads(run(*arguments, "--json").stdout)
    for record in (pretrained, finetuned, report):
        assert record["notice"] == "research use only; not a medical device"
        assert record["data"]["synthetic"] is True
        assert len(record["data"]["fingerprint"]) == 64
    assert report["split"] == "val"
    assert report["num_eyes"] == 8
    assert {label["name"] for label in report["labels"]} >= {"macular_edema", "glaucoma"}
    assert 0 <= report["mean_auroc"]["value"] <= 1
    text = run(*arguments).stdout
    assert "macular_edema" in text
    assert "mean of diseases" in text
    assert "synthetic phantom eyes, no patients" in text
    assert text.endswith("research use only; not a medical device\n")


def test_the_teacher_names_its_encoder(chain):
    out = chain[0]
    config = json.loads((out / "teacher" / "config.json").read_text(encoding="utf-8"))
    weights = (out / "encoder" / "model.safetensors").read_bytes()
    assert config["pretrained"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert config["pretrained"]["pretrain"]["seed"] == 0
    assert config["pretrained"]["pretrain"]["learning_rate"] == 4.8e-3
    assert config["metrics"]["skipped_steps"] == 0


def test_shards_train_what_memory_trains_and_only_the_training_split(data_dir, tmp_path):
    options = ("--num-steps", 2, "--size-px", 32, "--workers", 0, "--json")
    losses = []
    for split in ("train", "val"):
        write_shards(data_dir, tmp_path / split, split=split, size_px=32)
    for name, place in (("--data", data_dir), ("--shards", tmp_path / "train")):
        done = run("pretrain", name, place, "--out", tmp_path / name.strip("-"), *options)
        losses.append(json.loads(done.stdout)["metrics"])
    assert losses[0] == losses[1]
    arguments = ("--shards", tmp_path / "val", "--out", tmp_path / "never", *options)
    assert "holds split 'val'; pretraining takes the" in run("pretrain", *arguments, code=6).stderr
    assert not (tmp_path / "never").exists()


def test_progress_ends_with_the_last_step(data_dir, tmp_path):
    options = ("--num-steps", 3, "--size-px", 32, "--routes", "cfp_only")
    result = run("pretrain", "--data", data_dir, "--out", tmp_path / "e", *options)
    assert "step 3/3  cfp<-cfp" in result.stderr


def test_cuda_by_name_is_never_replaced(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = ("--data", data_dir, "--out", tmp_path / "e", "--device", "cuda")
    assert "sees no CUDA device" in run("pretrain", *arguments, code=2).stderr
    assert not (tmp_path / "e").exists()


def test_a_folder_without_an_index_ends_with_the_exit_code_of_data(tmp_path):
    result = run("pretrain", "--data", tmp_path, "--out", tmp_path / "e", code=6)
    assert result.stderr.startswith("error: ")
    assert "index.csv" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "e").exists()


def test_a_checkpoint_of_another_kind_is_refused(data_dir, chain, tmp_path):
    out = chain[0]
    result = run(
        *("finetune", "--encoder", out / "teacher", "--data", data_dir, "--out", tmp_path / "t"),
        code=7,
    )
    assert "a 'encoder' is needed" in result.stderr
    missing = run("evaluate", "teacher", tmp_path / "none", "--data", data_dir, code=7)
    assert "has no config.json" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--num-steps", 0), "0 is not in the range x>=1"),
        (("--seed", -1), "-1 is not in the range x>=0"),
        (("--device", "gpu"), "'gpu' is not one of 'auto', 'cpu', 'cuda'"),
        (("--size-px", 33), "size_px is 33"),
        (("--routes", "best"), "'best' is not one of 'cfp_first', 'cfp_only', 'contrastive'"),
    ],
)
def test_settings_out_of_range_end_with_2(data_dir, tmp_path, arguments, message):
    result = run("pretrain", "--data", data_dir, "--out", tmp_path / "e", *arguments, code=2)
    assert message in result.stderr


def test_too_few_bootstrap_draws_are_refused(data_dir, chain):
    arguments = ("--data", data_dir, "--num-draws", 99)
    result = run("evaluate", "teacher", chain[0] / "teacher", *arguments, code=2)
    assert "99 is not in the range x>=100" in result.stderr


def test_evaluation_is_on_val_or_test_only(data_dir, chain):
    result = run(
        "evaluate", "teacher", chain[0] / "teacher", "--data", data_dir, "--split", "train", code=2
    )
    assert "'train' is not one of 'val', 'test'" in result.stderr
