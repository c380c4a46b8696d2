"""From a student checkpoint to a bundle that the runtime reads back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from calibration.run_models import score_models
from distill.student import Student, StudentConfig, save_student
from edge_runtime.bundle import read_bundle
from edge_runtime.errors import CheckpointError, ConfigError, DataError
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from export.assemble import ExportConfig, _protocol, assemble_bundle
from export.cli import export as export_command
from train.data.origin import DataOrigin, read_origin

LABELS = ("macular_edema", "glaucoma")
CONFIG = ExportConfig(name="tiny", version="1.0", num_golden=4)


def make_student(folder, **changes) -> None:
    torch.manual_seed(0)
    student = Student(StudentConfig(size_px=32, channels=(8, 8, 8, 16), stem_width=8), LABELS)
    record = {
        "distill": {"seed": 5},
        "teacher": {"sha256": "a" * 64, "seeds": {"finetune": 2}},
        "training_data": {"synthetic": True, "fingerprint": "b" * 64},
        "metrics": {"training": {}, "val": {"decision_agreement": 0.987}},
    }
    record.update(changes)
    save_student(folder, student, {name: value for name, value in record.items() if value})


@pytest.fixture(scope="module")
def student_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    make_student(folder)
    return folder


@pytest.fixture(scope="module")
def bundle_dir(student_dir, phantom_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "bundle"
    assemble_bundle(student_dir, phantom_dir, folder, CONFIG)
    return folder


def test_the_runtime_reads_the_bundle(bundle_dir) -> None:
    bundle = read_bundle(bundle_dir, trusted_keys=None, require_signature=False)
    manifest = bundle.manifest
    assert manifest.label_names == LABELS
    assert manifest.gradability.name == "gradable"
    assert not manifest.calibrated
    assert manifest.int8 is None
    assert manifest.protocol.cameras == ("synthetic phantom",)
    assert manifest.protocol.min_pixels_per_degree == 1.0
    assert manifest.protocol.warn_pixels_per_degree is None
    assert manifest.intended_use == "research use only; not a medical device"
    assert manifest.provenance["synthetic"] is True
    assert "synthetic" in manifest.provenance["training_data"]
    assert manifest.provenance["teacher_sha256"] == "a" * 64
    assert manifest.provenance["data_fingerprint"] == "b" * 64
    assert manifest.provenance["seeds"] == {"distill": 5, "finetune": 2}
    assert manifest.preprocess_spec() == PreprocessSpec(size_px=32)


def test_the_file_alone_says_what_it_is(bundle_dir) -> None:
    bundle = read_bundle(bundle_dir, trusted_keys=None, require_signature=False)
    model = onnx.load_model_from_string(bundle.model_bytes("fp32"))
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["labels"].split(",") == list(bundle.manifest.label_names)
    assert told["preprocessing_sha256"] == bundle.manifest.preprocessing_sha256
    assert told["input"] == "uint8 RGB, 1 x 32 x 32 x 3"
    assert told["intended_use"] == bundle.manifest.intended_use
    assert told["cameras"] == "synthetic phantom"


def test_golden_vectors_reproduce(bundle_dir) -> None:
    bundle = read_bundle(bundle_dir, trusted_keys=None, require_signature=False)
    golden = bundle.golden()
    scores = score_models({"fp32": bundle.model_bytes("fp32")}, golden.image_nhwc)["fp32"]
    np.testing.assert_allclose(scores.logits, golden.logits["fp32"], atol=1e-6)
    again = load_for_model(golden.encoded, PreprocessSpec(size_px=32))[1].image_hwc
    np.testing.assert_array_equal(again, golden.encoded_image_hwc)


def test_the_card_says_what_matters(bundle_dir) -> None:
    card = (bundle_dir / "MODEL_CARD.md").read_text()
    for words in ("not a medical device", "synthetic", *LABELS, "0.9870", "## Limits"):
        assert words in card
    assert "1 field(s) an eye" in card
    assert "Either field" not in card


def test_an_existing_folder_is_left_alone(student_dir, phantom_dir, tmp_path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder"):
        assemble_bundle(student_dir, phantom_dir, tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_cameras_must_be_named_for_data_that_is_not_synthetic(
    student_dir, phantom_dir, tmp_path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(phantom_dir, root)
    (root / "dataset.json").unlink()
    with pytest.raises(ConfigError, match="--camera"):
        assemble_bundle(student_dir, root, tmp_path / "bundle", CONFIG)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("missing", ["teacher", "training_data", "metrics", "distill"])
def test_a_student_of_unknown_origin_is_refused(phantom_dir, tmp_path, missing) -> None:
    make_student(tmp_path / "student", **{missing: None})
    with pytest.raises(CheckpointError, match=missing):
        assemble_bundle(tmp_path / "student", phantom_dir, tmp_path / "bundle", CONFIG)


def test_origin_is_read_strictly(tmp_path) -> None:
    assert read_origin(tmp_path, fingerprint="f") == DataOrigin(synthetic=False, fingerprint="f")
    record = tmp_path / "dataset.json"
    record.write_text('{"synthetic": true}')
    assert read_origin(tmp_path, fingerprint="f").synthetic
    for text in ('{"synthetic": "yes"}', "{}", "[]", "{"):
        record.write_text(text)
        with pytest.raises(DataError, match=r"dataset\.json"):
            read_origin(tmp_path, fingerprint="f")


def test_the_command(student_dir, phantom_dir, tmp_path) -> None:
    command = ["--student", str(student_dir), "--data", str(phantom_dir), "--name", "tiny"]
    command += ["--version", "2.0", "--out", str(tmp_path / "bundle"), "--camera", "Cam A"]
    command += ["--fields-per-eye", "2"]
    command += ["--min-pixels-per-degree", "2", "--warn-pixels-per-degree", "2.5"]
    outcome = CliRunner().invoke(export_command, [*command, "--json"])
    assert outcome.exit_code == 0, outcome.output
    printed = json.loads(outcome.stdout)
    assert printed["labels"] == list(LABELS)
    assert max(printed["parity"]["difference_of_range"].values()) < 1e-4
    manifest = read_bundle(tmp_path / "bundle", trusted_keys=None, require_signature=False).manifest
    assert manifest.protocol.cameras == ("Cam A",)
    assert manifest.protocol.fields_per_eye == 2
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert "2 field(s) an eye" in card
    assert "sensitivity is higher and specificity lower" in card
    assert manifest.protocol.min_pixels_per_degree == 2.0
    assert manifest.protocol.warn_pixels_per_degree == 2.5
    assert dict(manifest.files) == printed["files"]


def test_photographs_are_held_to_the_resolution_of_cameras() -> None:
    config = ExportConfig(name="tiny", version="1.0", cameras=("Cam A",))
    real = DataOrigin(synthetic=False, fingerprint="f")
    protocol = _protocol(config, real)
    assert (protocol.min_pixels_per_degree, protocol.warn_pixels_per_degree) == (28.0, 35.0)
    own = _protocol(replace(config, min_pixels_per_degree=5.0), real)
    assert (own.min_pixels_per_degree, own.warn_pixels_per_degree) == (5.0, None)
