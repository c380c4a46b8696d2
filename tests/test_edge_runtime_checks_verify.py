"""Verification reports what this machine does not reproduce."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle_factory import BuiltBundle, build_bundle, tiny_onnx

from edge_runtime.bundle import read_bundle
from edge_runtime.bundle_parts.golden import GoldenVectors, golden_bytes
from edge_runtime.checks.verify import VerificationReport, verify_bundle
from edge_runtime.errors import (
    BundleFormatError,
    BundleIntegrityError,
    BundleSignatureError,
    VerificationError,
)


@pytest.fixture
def built(tmp_path: Path) -> BuiltBundle:
    return build_bundle(tmp_path / "bundle")


def golden_of(built: BuiltBundle) -> GoldenVectors:
    """The golden vectors as they lie in the bundle."""
    return read_bundle(built.folder, trusted_keys=built.trusted_keys).golden()


def with_golden(built: BuiltBundle, golden: GoldenVectors) -> VerificationReport:
    """Verify after the maker signed other golden vectors."""
    (built.folder / "golden.npz").write_bytes(golden_bytes(golden))
    built.write_and_sign(replace(built.manifest, files={}))
    return verify_bundle(built.folder, trusted_keys=built.trusted_keys)


def failed(report: VerificationReport) -> list[str]:
    """Names of the checks that failed."""
    return [check.name for check in report.checks if not check.passed]


def test_a_good_bundle_passes_every_check(built: BuiltBundle) -> None:
    report = verify_bundle(built.folder, trusted_keys=built.trusted_keys)
    report.raise_if_failed()
    names = [check.name for check in report.checks]
    assert names == [
        "signature",
        "hashes",
        "decoder",
        "preprocessing",
        "golden fp32",
        "golden int8",
        "portable int8",
    ]
    assert report.passed
    assert report.key_id == built.keys.key_id
    assert json.loads(json.dumps(report.to_dict()))["passed"] is True


@pytest.mark.parametrize(("precision", "check"), [("fp32", "fp32"), ("int8_cpu", "int8")])
def test_a_probability_beyond_the_tolerance_fails(
    built: BuiltBundle, precision: str, check: str
) -> None:
    golden = golden_of(built)
    moved = {name: values.copy() for name, values in golden.logits.items()}
    moved[precision][0, 0] = 0.0  # the tiny model's random pictures give other logits
    assert abs(golden.logits[precision][0, 0]) > 0.5
    report = with_golden(built, replace(golden, logits=moved))
    portable = ["portable int8"] if check == "int8" else []  # held against the same outputs
    assert failed(report) == [f"golden {check}", *portable]
    with pytest.raises(VerificationError, match=f"golden {check}"):
        report.raise_if_failed()
    assert VerificationError.exit_code == 10


def test_gradability_is_compared_too(built: BuiltBundle) -> None:
    golden = golden_of(built)
    moved = {name: values.copy() for name, values in golden.gradability_logit.items()}
    moved["fp32"][1, 0] += 5.0
    assert failed(with_golden(built, replace(golden, gradability_logit=moved))) == ["golden fp32"]


@pytest.mark.parametrize(("shift", "passes"), [(0.001, True), (0.2, False)])
def test_a_decision_counts_as_changed_beyond_the_tolerance_only(
    built: BuiltBundle, shift: float, passes: bool
) -> None:
    golden = golden_of(built)
    label = built.manifest.labels[0]
    assert label.temperature is not None
    assert label.operating_point is not None
    assert built.manifest.golden.atol_probability_int8 < 0.2
    logit = float(golden.logits["int8_cpu"][0, 0])
    p_actual = 1.0 / (1.0 + np.exp(-logit / label.temperature))
    # Recorded on the other side of the threshold, which lies right beside the actual answer.
    side = -1.0 if p_actual > 0.5 else 1.0
    p_expected = p_actual + side * shift
    threshold = float(p_actual + side * 1e-9)
    moved = {name: values.copy() for name, values in golden.logits.items()}
    moved["int8_cpu"][0, 0] = label.temperature * np.log(p_expected / (1.0 - p_expected))
    point = replace(label.operating_point, threshold=threshold)
    labels = (replace(label, operating_point=point), *built.manifest.labels[1:])
    changed = replace(built, manifest=replace(built.manifest, labels=labels))
    report = with_golden(changed, replace(golden, logits=moved))
    assert ("golden int8" not in failed(report)) == passes
    detail = next(c.detail for c in report.checks if c.name == "golden int8")
    expected = "0 decisions changed, 1 more within" if passes else "1 decisions changed"
    assert expected in detail


def test_a_portable_file_of_another_model_fails(built: BuiltBundle) -> None:
    (built.folder / "model.int8.onnx").write_bytes(tiny_onnx(size_px=64))
    built.write_and_sign(replace(built.manifest, files={}))
    report = verify_bundle(built.folder, trusted_keys=built.trusted_keys)
    assert failed(report) == ["portable int8"]


def test_one_wrong_pixel_of_preprocessing_fails(built: BuiltBundle) -> None:
    golden = golden_of(built)
    image = golden.encoded_image_hwc.copy()
    image[16, 16, 1] += 1
    report = with_golden(built, replace(golden, encoded_image_hwc=image))
    assert failed(report) == ["preprocessing"]
    assert "1 pixels differ" in next(c.detail for c in report.checks if not c.passed)


def test_an_encoded_picture_that_cannot_be_read_fails(built: BuiltBundle) -> None:
    golden = golden_of(built)
    report = with_golden(built, replace(golden, encoded=golden.encoded[:-30]))
    assert failed(report) == ["preprocessing"]


def test_a_model_that_does_not_load_fails_the_check(built: BuiltBundle) -> None:
    other = tiny_onnx(size_px=64)
    (built.folder / "model.int8-cpu.onnx").write_bytes(other)
    built.write_and_sign(replace(built.manifest, files={}))
    report = verify_bundle(built.folder, trusted_keys=built.trusted_keys)
    assert failed(report) == ["golden int8"]


def test_a_changed_byte_is_named(built: BuiltBundle) -> None:
    path = built.folder / "model.fp32.onnx"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleIntegrityError, match=r"model\.fp32\.onnx"):
        verify_bundle(built.folder, trusted_keys=built.trusted_keys)


def test_unsigned_and_uncalibrated_bundles_are_refused(tmp_path: Path) -> None:
    unsigned = build_bundle(tmp_path / "a" / "bundle", signed=False)
    with pytest.raises(BundleSignatureError, match="unsigned"):
        verify_bundle(unsigned.folder, trusted_keys=unsigned.trusted_keys)
    raw = build_bundle(tmp_path / "b" / "bundle", calibrated=False)
    with pytest.raises(BundleFormatError, match="calibrate"):
        verify_bundle(raw.folder, trusted_keys=raw.trusted_keys)


def test_a_report_without_checks_has_not_passed() -> None:
    report = VerificationReport(
        bundle_name="x",
        bundle_version="1",
        bundle_sha256="0",
        synthetic=False,
        key_id=None,
        trusted_from=None,
        checks=(),
    )
    assert not report.passed
