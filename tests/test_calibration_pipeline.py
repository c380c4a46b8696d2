"""The calibrate stage end to end on a small student whose findings it can see."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from calibration_data import SIZE_PX, read_rows, write_bundle, write_data, write_rows
from calibration_graphs import LABELS, build_student
from click.testing import CliRunner
from onnx import numpy_helper

from calibration.accuracy import SearchConfig
from calibration.cli import calibrate, keygen
from calibration.config import CalibrationConfig
from calibration.gate import GateLimits
from calibration.observers import METHODS, RangeMethod
from calibration.pipeline import calibrate_bundle
from calibration.trt_cache import parse_cache
from edge_runtime.bundle import read_bundle
from edge_runtime.errors import (
    BundleFormatError,
    BundleSignatureError,
    ConfigError,
    DataError,
    GateRefusedError,
)
from edge_runtime.screener import Screener
from edge_runtime.signing import generate_keypair

CONFIG = CalibrationConfig(
    min_eyes=4, num_draws=100, limits=GateLimits(max_auroc_drop=0.05, max_sensitivity_drop=0.2)
)
SMALLEST = GateLimits(max_auroc_drop=1e-6, max_sensitivity_drop=1e-6, max_specificity_drop=1e-6)
REFUSING = replace(CONFIG, limits=SMALLEST)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """Folder with data/, exported/ (uncalibrated bundle) and keys/."""
    root = tmp_path_factory.mktemp("calibrate")
    write_data(root / "data", build_student())
    write_bundle(root / "exported", build_student())
    generate_keypair(root / "keys")
    return root


@pytest.fixture(scope="module")
def calibrated(workshop) -> Path:
    """A calibrated bundle; read only."""
    shutil.copytree(workshop / "exported", workshop / "calibrated")
    run(workshop, workshop / "calibrated", CONFIG)
    return workshop / "calibrated"


@pytest.fixture
def bundle_dir(workshop, tmp_path) -> Path:
    return Path(shutil.copytree(workshop / "exported", tmp_path / "bundle"))


def run(workshop: Path, bundle_dir: Path, config: CalibrationConfig, **options):
    key = workshop / "keys" / "signing.key"
    return calibrate_bundle(bundle_dir, workshop / "data", key, config, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_calibrated_bundle_is_signed_complete_and_readable(workshop, calibrated):
    bundle = read_bundle(calibrated, trusted_keys=workshop / "keys" / "signing.pub")
    manifest = bundle.manifest
    assert manifest.calibrated
    assert manifest.int8.num_images == 30
    assert manifest.int8.float_nodes == ("/evidence", "/gradability_logit")
    assert [row.name for row in manifest.int8.gate.labels] == [*LABELS, "gradability"]
    assert manifest.int8.gate.num_images == 60
    for spec in manifest.labels:
        assert spec.operating_point.sensitivity >= 0.90
        assert spec.operating_point.target == "sensitivity >= 0.90"
        assert spec.abstention is None
        assert spec.operating_point.held_out.num_folds == 5
    assert manifest.gradability.operating_point.specificity >= 0.90
    assert manifest.int8.gate.status == "not_shown"
    assert {one.attribute for one in manifest.int8.gate.subgroups} == {"site", "eye", "quality"}
    assert manifest.provenance["calibrate"]["config"]["method"]["percentile"] == 99.99
    assert manifest.provenance["training_data"] == "synthetic phantom eyes"


def test_golden_outputs_are_those_of_the_cpu_file(calibrated):
    bundle = read_bundle(calibrated, trusted_keys=None, require_signature=False)
    golden = bundle.golden()
    assert golden.logits["int8_cpu"].shape == golden.logits["fp32"].shape
    assert not np.array_equal(golden.logits["int8_cpu"], golden.logits["fp32"])
    np.testing.assert_allclose(
        golden.logits["int8_cpu"], golden.logits["fp32"], rtol=0.15, atol=1.0
    )


def test_the_bundle_screens(workshop, calibrated):
    """Sixty eyes cannot show that INT8 is as good, so it screens only on demand."""
    image = next((workshop / "data" / "cfp").iterdir())
    key = workshop / "keys" / "signing.pub"
    with pytest.raises(GateRefusedError, match="not_shown"):
        Screener.open(calibrated, trusted_keys=key)
    with Screener.open(calibrated, trusted_keys=key, allow_unproven_int8=True) as screener:
        result = json.loads(screener.screen(image).to_json())
    assert result["disposition"] in ("refer", "no_refer", "ungradable")
    assert result["engine"]["int8_gate"] == "not_shown"


def test_enough_patients_for_wide_limits_pass_and_screen_without_being_told(workshop, tmp_path):
    write_data(tmp_path / "data", build_student(), num_patients=160)
    out = tmp_path / "bundle8"
    wide = GateLimits(max_auroc_drop=0.1, max_sensitivity_drop=0.25, max_specificity_drop=0.25)
    outcome = calibrate_bundle(
        workshop / "exported",
        tmp_path / "data",
        workshop / "keys" / "signing.key",
        replace(CONFIG, limits=wide),
        out_dir=out,
    )
    assert outcome.gate.report.status == "passed"
    assert "passed: INT8 was shown" in (out / "MODEL_CARD.md").read_text()
    image = next((tmp_path / "data" / "cfp").iterdir())
    with Screener.open(out, trusted_keys=workshop / "keys" / "signing.pub") as screener:
        result = screener.screen(image)
    assert result.engine.int8_gate == "passed"
    assert result.warnings == ()


def test_figures_say_what_they_are_worth(calibrated):
    figures = read_bundle(calibrated, trusted_keys=None, require_signature=False).manifest.metrics
    for name in LABELS:
        found = figures["int8_val"][name]
        for when in ("before_temperature", "after_temperature"):
            low, high = found[when]["brier_interval"]
            assert low <= found[when]["brier"] <= high
            assert sum(one["num_eyes"] for one in found[when]["reliability"]) == found["num_eyes"]
        screening = found["screening"]
        refer, worst = screening["ungradable_refer"], screening["ungradable_worst"]
        assert worst["sensitivity"] <= refer["sensitivity"]
        assert worst["specificity"] == refer["specificity"]
        assert screening["num_eyes"] == refer["num_positive"] + refer["num_negative"] == 60
        floor = refer["sensitivity_floor"]
        assert (floor["status"] == "shown") == (floor["lower_bound"] > floor["floor"])
        assert [one["prevalence"] for one in refer["predictive_values"]] == [0.03, 0.05, 0.1, 0.2]
    assert "screening" not in figures["int8_val"]["gradability"]


def test_a_new_folder_leaves_the_old_bundle_alone(workshop, bundle_dir, tmp_path, calibrated):
    before = contents(bundle_dir)
    out = tmp_path / "new" / "bundle8"
    run(workshop, bundle_dir, CONFIG, out_dir=out)
    assert contents(bundle_dir) == before
    assert contents(out) == contents(calibrated)
    assert [path.name for path in out.parent.iterdir()] == ["bundle8"]
    calls = []
    for taken in (out, bundle_dir / "bundle.json"):
        with pytest.raises(ConfigError, match="exists already"):
            run(workshop, bundle_dir, CONFIG, out_dir=taken, progress=lambda *a: calls.append(a))
    assert calls == []


def test_an_abstention_band_goes_into_the_bundle(workshop, bundle_dir):
    run(workshop, bundle_dir, replace(CONFIG, abstain_risk=0.2))
    manifest = read_bundle(bundle_dir, trusted_keys=None, require_signature=False).manifest
    for spec in manifest.labels:
        assert spec.abstention.risk == 0.2
        assert spec.abstention.low <= spec.operating_point.threshold
    assert manifest.gradability.abstention is None
    assert "conformal risk control" in (bundle_dir / "MODEL_CARD.md").read_text()


def test_a_band_that_so_few_patients_cannot_carry_is_refused(workshop, bundle_dir):
    before = contents(bundle_dir)
    with pytest.raises(DataError, match="99 are needed"):
        run(workshop, bundle_dir, replace(CONFIG, abstain_risk=0.01))
    assert contents(bundle_dir) == before


def test_model_card_names_the_data_once(workshop, calibrated, tmp_path):
    card = (calibrated / "MODEL_CARD.md").read_text()
    assert card.startswith("# Student")
    assert "synthetic phantom eyes" in card
    again = Path(shutil.copytree(calibrated, tmp_path / "again"))
    run(workshop, again, CONFIG)
    assert (again / "MODEL_CARD.md").read_text() == card


def test_same_seed_same_bytes_but_another_method_differs(workshop, calibrated, bundle_dir):
    run(workshop, bundle_dir, CONFIG)
    first, second = contents(calibrated), contents(bundle_dir)
    assert first == second
    run(workshop, bundle_dir, replace(CONFIG, method=RangeMethod(name="minmax")))
    third = contents(bundle_dir)
    assert third["model.int8.onnx"] != first["model.int8.onnx"]
    assert third["model.fp32.onnx"] == first["model.fp32.onnx"]
    manifest = json.loads(third["bundle.json"])
    assert manifest["int8"]["percentile"] is None
    assert (
        manifest["int8"]["fingerprint"] == json.loads(first["bundle.json"])["int8"]["fingerprint"]
    )


def test_a_refused_gate_leaves_the_bundle_untouched(workshop, bundle_dir, tmp_path):
    clipping = replace(REFUSING, method=RangeMethod(percentile=50.5))
    before = contents(tmp_path / "bundle")
    report = tmp_path / "gate.json"
    with pytest.raises(GateRefusedError, match=r"falls by 0\.\d+"):
        run(workshop, bundle_dir, clipping, report_path=report)
    assert contents(tmp_path / "bundle") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "gate.json"]
    content = json.loads(report.read_text())
    assert content["report"]["status"] == "failed"
    assert content["report"]["mean_auroc_drop"] > 0
    assert content["report"]["reasons"]
    rows = dict(enumerate(read_rows(workshop / "data"), start=2))
    for flip in content["report"]["flips"]:
        row = rows[content["rows_of_flips"][flip["image_sha256"]]]
        data = (workshop / "data" / row[5]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == flip["image_sha256"]
    assert content["report"]["flips"]


def test_a_search_reverts_layers_until_the_gate_passes(workshop, bundle_dir, tmp_path):
    """Coarse ranges make INT8 fail; the search finds layers that rescue it and says which."""
    coarse = replace(
        CONFIG,
        method=RangeMethod(name="percentile", percentile=60.0),
        limits=GateLimits(max_auroc_drop=0.03, max_sensitivity_drop=0.2, max_specificity_drop=0.2),
    )
    with pytest.raises(GateRefusedError):
        run(workshop, bundle_dir, coarse)
    report = tmp_path / "report.json"
    searching = replace(coarse, search=SearchConfig(max_seconds=600.0, num_images=8))
    outcome = run(workshop, bundle_dir, searching, report_path=report)
    assert outcome.gate.report.status != "failed"
    assert outcome.search.passed
    record = json.loads(report.read_text())["search"]
    assert record["passed"]
    assert record["summary"] == outcome.search.sentence()
    bundle = read_bundle(bundle_dir, trusted_keys=None, require_signature=False)
    assert bundle.manifest.provenance["search"] == record
    reverted = [row["group"] for row in record["sensitivities"] if row["is_float"]]
    assert set(reverted) <= set(bundle.manifest.int8.float_nodes)
    assert bundle.model_bytes("int8") == outcome.search.files.portable
    assert bundle.model_bytes("int8_fp16") == outcome.search.files.half


def test_an_unreachable_gate_names_the_best_found_and_changes_nothing(workshop, bundle_dir):
    before = contents(bundle_dir)
    searching = replace(
        CONFIG,
        method=RangeMethod(name="percentile", percentile=60.0),
        limits=SMALLEST,
        search=SearchConfig(max_seconds=1e-9, num_images=8),
    )
    with pytest.raises(GateRefusedError, match=r"Search: best found, which does not pass.*budget"):
        run(workshop, bundle_dir, searching)
    assert contents(bundle_dir) == before


def test_a_failed_bundle_is_written_on_demand_and_screens_only_on_demand(workshop, bundle_dir):
    clipping = replace(REFUSING, method=RangeMethod(percentile=50.5))
    run(workshop, bundle_dir, clipping, write_failed=True)
    key = workshop / "keys" / "signing.pub"
    with pytest.raises(GateRefusedError, match="failed on"):
        Screener.open(bundle_dir, trusted_keys=key)
    assert "FAILED: INT8 lost more" in (bundle_dir / "MODEL_CARD.md").read_text()


def test_pictures_that_the_camera_refuses_choose_no_threshold(workshop, bundle_dir, tmp_path):
    data = Path(shutil.copytree(workshop / "data", tmp_path / "data"))
    first = next(row for row in read_rows(data) if row[4] == "val")
    path = data / first[5]
    pixels = cv2.imread(str(path))
    cv2.imwrite(str(path), cv2.merge([pixels.max(axis=2)] * 3))  # no colour: the gate's business
    outcome = calibrate_bundle(bundle_dir, data, workshop / "keys" / "signing.key", CONFIG)
    assert (outcome.num_val_images, outcome.num_refused_images) == (59, 1)
    screening = outcome.written.manifest.metrics["int8_val"][LABELS[0]]["screening"]
    assert screening["num_eyes"] == 60


def test_too_few_eyes_are_refused_before_the_long_work(workshop, bundle_dir):
    calls = []
    with pytest.raises(DataError, match=r"\d+ eyes with it and \d+ without in val"):
        run(
            workshop,
            bundle_dir,
            replace(CONFIG, min_eyes=50),
            progress=lambda *arguments: calls.append(arguments),
        )
    assert calls == []


def test_diseases_of_ungradable_eyes_do_not_count(workshop, bundle_dir, tmp_path):
    data = Path(shutil.copytree(workshop / "data", tmp_path / "data"))
    rows = read_rows(data)
    ungradable = sum(row[4] == "val" and row[-1] == "0" for row in rows)
    outcome = calibrate_bundle(bundle_dir, data, workshop / "keys" / "signing.key", CONFIG)
    points = [spec.operating_point for spec in outcome.written.manifest.labels]
    assert ungradable > 0
    assert {p.num_positive + p.num_negative for p in points} == {60 - ungradable}


def test_unreadable_val_images_are_counted_and_left_out(workshop, bundle_dir, tmp_path):
    data = Path(shutil.copytree(workshop / "data", tmp_path / "data"))
    first = next(row for row in read_rows(data) if row[4] == "val")
    (data / first[5]).write_bytes(b"\xff\xd8 cut")
    outcome = calibrate_bundle(bundle_dir, data, workshop / "keys" / "signing.key", CONFIG)
    assert outcome.num_val_images == 59
    assert outcome.num_refused_images == 1


def test_a_wrong_key_is_found_before_the_long_work(workshop, bundle_dir):
    before = contents(bundle_dir)
    with pytest.raises(ConfigError, match="private key"):
        calibrate_bundle(bundle_dir, workshop / "data", workshop / "keys" / "signing.pub", CONFIG)
    assert contents(bundle_dir) == before


def test_a_shared_patient_is_refused(workshop, bundle_dir, tmp_path):
    data = Path(shutil.copytree(workshop / "data", tmp_path / "data"))
    rows = read_rows(data)
    rows[0][4] = "val"
    write_rows(data, rows)
    with pytest.raises(DataError, match="is in the splits val and train"):
        calibrate_bundle(bundle_dir, data, workshop / "keys" / "signing.key", CONFIG)


def test_a_graph_without_the_right_input_is_refused(workshop, tmp_path):
    model = onnx.load_model_from_string(build_student())
    for tensor in model.graph.initializer:
        if tensor.name == "mean":
            tensor.CopyFrom(numpy_helper.from_array(np.array(127.5, np.float32), "mean"))
    write_bundle(tmp_path / "bundle", model.SerializeToString())
    with pytest.raises(BundleFormatError, match=r"offset -127\.5"):
        run(workshop, tmp_path / "bundle", CONFIG)


def test_commands_make_keys_and_a_signed_bundle(workshop, bundle_dir, tmp_path):
    made = CliRunner().invoke(keygen, ["--out", str(tmp_path / "k"), "--json"])
    key_id = json.loads(made.stdout)["key_id"]
    arguments = [str(bundle_dir), "--data", str(workshop / "data")]
    arguments += ["--signing-key", str(tmp_path / "k" / "signing.key"), "--min-eyes", "4"]
    arguments += ["--max-auroc-drop", "0.05", "--max-sensitivity-drop", "0.2", "--json"]
    arguments += ["--prevalence", "0.08"]
    for where in ([], ["--in-place", "--out", str(tmp_path / "x")]):
        refused = CliRunner().invoke(calibrate, [*arguments, *where])
        assert refused.exit_code == 2
        assert "either --out DIR or --in-place" in refused.output
    arguments += ["--in-place"]
    both = ["--target-sensitivity", "0.9", "--target-specificity", "0.9"]
    assert CliRunner().invoke(calibrate, [*arguments, *both]).exit_code == 2
    done = CliRunner().invoke(calibrate, arguments, catch_exceptions=False)
    content = json.loads(done.stdout)
    assert content["key_id"] == key_id
    assert content["gate"]["status"] == "not_shown"
    (values,) = content["figures"][LABELS[0]]["screening"]["ungradable_refer"]["predictive_values"]
    assert values["prevalence"] == 0.08
    assert [label["name"] for label in content["labels"]] == list(LABELS)
    assert read_bundle(bundle_dir, trusted_keys=tmp_path / "k").key_id == key_id
    with pytest.raises(BundleSignatureError):
        read_bundle(bundle_dir, trusted_keys=workshop / "keys")


def test_the_ranges_are_written_for_implicit_int8_as_well(workshop, bundle_dir, tmp_path):
    cache = tmp_path / "student.cache"
    arguments = [str(bundle_dir), "--data", str(workshop / "data"), "--min-eyes", "4"]
    arguments += ["--signing-key", str(workshop / "keys" / "signing.key"), "--method", "mse"]
    arguments += ["--max-auroc-drop", "0.05", "--max-sensitivity-drop", "0.2"]
    arguments += ["--in-place", "--trt-cache", str(cache), "--trt-version", "10.3.0"]
    done = CliRunner().invoke(calibrate, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    found = parse_cache(cache.read_text())
    ranges = read_bundle(bundle_dir, trusted_keys=workshop / "keys").manifest.provenance
    for name, amax in ranges["calibrate"]["ranges"].items():
        assert amax / 127 <= found.scales[name] <= amax / 127 * (1 + 2**-10)  # up to float16
    before = contents(bundle_dir)
    arguments[-1] = "11.4.0"
    refused = CliRunner().invoke(calibrate, arguments)
    assert isinstance(refused.exception, ConfigError)
    assert contents(bundle_dir) == before


def test_the_strata_are_counted_and_thin_ones_said_aloud(workshop, calibrated, bundle_dir):
    strata = json.loads((calibrated / "bundle.json").read_text())["provenance"]["calibrate"][
        "strata"
    ]
    assert sum(row["num_used"] for row in strata) == 30
    assert {(row["site"], row["quality"]) for row in strata} == {
        ("clinic-a", "gradable"),
        ("clinic-a", "ungradable"),
    }
    arguments = [str(bundle_dir), "--data", str(workshop / "data"), "--min-eyes", "4"]
    arguments += [
        "--signing-key",
        str(workshop / "keys" / "signing.key"),
        "--num-images",
        "9",
        "--in-place",
    ]
    arguments += ["--max-auroc-drop", "0.5", "--max-sensitivity-drop", "0.9"]
    done = CliRunner().invoke(calibrate, arguments, catch_exceptions=False)
    assert "fewer than 8 INT8-calibration images of site clinic-a" in done.output


def test_every_method_can_be_asked_for():
    option = next(o for o in calibrate.params if o.name == "method")
    assert set(option.type.choices) == set(METHODS)
    assert option.default == RangeMethod().name


def test_keys_are_not_overwritten(tmp_path):
    assert CliRunner().invoke(keygen, ["--out", str(tmp_path)]).exit_code == 0
    again = CliRunner().invoke(keygen, ["--out", str(tmp_path)])
    assert isinstance(again.exception, ConfigError)


@pytest.mark.parametrize("command", [calibrate, keygen])
def test_help_has_an_example(command):
    text = CliRunner().invoke(command, ["--help"]).output
    assert "Example:\n" in text
    assert "edge-screen keygen --out keys" in text


def test_input_size_of_the_helpers_agrees():
    image = onnx.load_model_from_string(build_student()).graph.input[0]
    assert image.type.tensor_type.shape.dim[1].dim_value == SIZE_PX
