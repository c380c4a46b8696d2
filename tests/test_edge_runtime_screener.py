"""From an examination to a result: nothing that goes wrong may end in 'no refer'."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundle_factory import BuiltBundle, build_bundle, fundus_png
from screener_factory import GOOD, OTHER, FakeEngine, with_band

from edge_runtime import eye_pipeline
from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.bundle_parts.manifest import SYNTHETIC_WARNING
from edge_runtime.engines import ModelOutput
from edge_runtime.errors import (
    BundleFormatError,
    BundleSignatureError,
    ConfigError,
    EngineError,
    GateRefusedError,
    VerificationError,
)
from edge_runtime.examination import Examination, EyeImage
from edge_runtime.eye_pipeline import DOUBTFUL, LOW_GRADABILITY
from edge_runtime.fundus.laterality import OTHER_EYE, SAME_SIDE, guess_laterality
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from edge_runtime.result import Decision, ScreeningResult
from edge_runtime.screener import FP32_WARNING, SAME_IMAGE, UNPROVEN_WARNING, Screener


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    folder = tmp_path_factory.mktemp("screener") / "bundle"
    return build_bundle(folder, gradability_threshold=0.1)


@pytest.fixture(scope="module")
def bundle(built: BuiltBundle) -> Bundle:
    return read_bundle(built.folder, trusted_keys=built.trusted_keys)


def only_eye(result: ScreeningResult, reason: str) -> None:
    """Assert one ungradable eye with exactly this reason, and no label shown."""
    (eye,) = result.eyes
    (field,) = eye.fields
    assert result.disposition is eye.disposition is field.disposition is Decision.UNGRADABLE
    assert eye.reasons == field.quality.reasons == (reason,)
    assert not field.quality.gradable
    assert field.labels == ()


def test_an_open_screener_keeps_no_bytes_of_the_bundle(built: BuiltBundle, bundle: Bundle) -> None:
    with Screener.open(built.folder, trusted_keys=built.trusted_keys) as screener:
        assert dict(screener.bundle.contents) == {}
        assert screener.bundle == bundle.without_contents()
        assert screener.screen(GOOD).eyes[0].fields[0].labels


def test_open_and_screen_with_the_real_engine(built: BuiltBundle, tmp_path: Path) -> None:
    path = tmp_path / "eye.png"
    path.write_bytes(GOOD)
    with Screener.open(built.folder, trusted_keys=built.trusted_keys) as screener:
        screener.warmup()
        result = screener.screen(GOOD)
        from_path = screener.screen(path)
    assert result.disposition is Decision.NO_REFER
    (eye,) = result.eyes[0].fields
    assert eye.image_sha256 == hashlib.sha256(GOOD).hexdigest()
    assert [label.name for label in eye.labels] == ["macular_edema", "glaucoma"]
    assert set(eye.timings_ms) == set(eye_pipeline.STAGES)
    assert from_path.eyes[0].fields[0].labels == eye.labels
    assert result.bundle.key_id == built.keys.key_id
    assert (result.engine.name, result.engine.precision) == ("onnxruntime", "int8")


def test_the_engine_is_told_how_long_the_caller_waits(bundle: Bundle) -> None:
    engine = FakeEngine()
    Screener(bundle, engine).screen(GOOD)
    assert engine.timeout_s is None
    Screener(bundle, engine).screen(GOOD, deadline_ms=60_000.0)
    assert engine.timeout_s is not None
    assert 50.0 < engine.timeout_s < 60.0


def test_the_model_sees_exactly_what_training_sees(built: BuiltBundle, bundle: Bundle) -> None:
    seen: list[np.ndarray] = []

    class Recorder(FakeEngine):
        def run(self, image_nhwc: np.ndarray, *, timeout_s: float | None = None) -> ModelOutput:
            seen.append(image_nhwc.copy())
            return super().run(image_nhwc, timeout_s=timeout_s)

    Screener(bundle, Recorder()).screen(GOOD)
    expected = load_for_model(GOOD, built.manifest.preprocess_spec())[1].image_hwc
    np.testing.assert_array_equal(seen[0][0], expected)


@pytest.mark.parametrize(
    ("logits", "decision"),
    [
        ((-3.0, -3.0), Decision.NO_REFER),
        ((-3.0, 3.0), Decision.REFER),
        ((0.0, -9.0), Decision.REFER),
    ],
)
def test_logits_decide(bundle: Bundle, logits: tuple[float, float], decision: Decision) -> None:
    result = Screener(bundle, FakeEngine(logits)).screen(GOOD)
    assert result.disposition is decision
    assert result.eyes[0].fields[0].quality.gradable


@pytest.mark.parametrize(
    ("logits", "decision", "reasons"),
    [
        ((-3.0, -3.0), Decision.NO_REFER, ()),
        ((-0.5, -3.0), Decision.UNGRADABLE, (DOUBTFUL,)),
        ((-0.5, 3.0), Decision.REFER, ()),
        ((3.0, -3.0), Decision.REFER, ()),
        ((-3.0, -0.5), Decision.NO_REFER, ()),
    ],
)
def test_a_doubtful_label_is_ungradable_unless_another_is_positive(
    bundle: Bundle, logits: tuple[float, float], decision: Decision, reasons: tuple[str, ...]
) -> None:
    result = Screener(with_band(bundle, 0.2), FakeEngine(logits)).screen(GOOD)
    (eye,) = result.eyes[0].fields
    assert result.disposition is decision
    assert eye.quality.reasons == reasons
    assert len(eye.labels) == 2
    assert json.loads(result.to_json())["eyes"][0]["fields"][0]["labels"][0]["doubtful_from"] == 0.2


@pytest.mark.parametrize("status", ["not_shown", "failed"])
def test_int8_that_has_not_passed_its_gate_is_taken_only_on_demand(
    tmp_path: Path, status: str
) -> None:
    unproven = build_bundle(tmp_path / "bundle", gradability_threshold=0.1, gate_status=status)
    where = {"trusted_keys": unproven.trusted_keys}
    with pytest.raises(
        GateRefusedError, match=rf"\({status} on 700.*--allow-unproven-int8"
    ) as told:
        Screener.open(unproven.folder, **where)
    assert told.value.exit_code == 8
    with pytest.raises(GateRefusedError):
        Screener(read_bundle(unproven.folder, **where), FakeEngine())
    warning = UNPROVEN_WARNING.format(status=status)
    with Screener.open(unproven.folder, **where, allow_unproven_int8=True) as screener:
        for result in (screener.screen(GOOD), screener.screen(b"")):
            assert warning in result.warnings
            assert json.loads(result.to_json())["engine"]["int8_gate"] == status
    with Screener.open(unproven.folder, **where, precision="fp32") as screener:
        result = screener.screen(GOOD)
        assert warning not in result.warnings
        assert (result.engine.precision, result.engine.int8_gate) == ("fp32", status)


def test_a_passed_gate_is_recorded_and_warns_of_nothing(bundle: Bundle) -> None:
    for allowed in (False, True):
        result = Screener(bundle, FakeEngine(), allow_unproven_int8=allowed).screen(GOOD)
        assert result.engine.int8_gate == "passed"
        assert result.warnings == ()


def test_low_gradability_is_ungradable_although_a_label_is_positive(bundle: Bundle) -> None:
    result = Screener(bundle, FakeEngine((9.0, 9.0), gradability=-9.0)).screen(GOOD)
    assert result.disposition is Decision.UNGRADABLE
    (eye,) = result.eyes[0].fields
    assert eye.quality.reasons == (LOW_GRADABILITY,)
    assert eye.any_positive
    assert eye.quality.gradable_probability is not None


def test_quality_gate_stops_before_the_model(built: BuiltBundle, bundle: Bundle) -> None:
    limits = {**built.manifest.quality_limits, "min_luma": 250.0}
    strict = replace(bundle, manifest=replace(bundle.manifest, quality_limits=limits))
    engine = FakeEngine((9.0, 9.0))
    result = Screener(strict, engine).screen(GOOD)
    only_eye(result, "dark")
    assert engine.num_runs == 0
    assert result.eyes[0].fields[0].quality.measures["luma"] < 250.0


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (None, "missing image"),
        (b"", "image unreadable"),
        (GOOD[:-40], "image unreadable"),
        (b"%PDF-1.7 not a picture", "image unreadable"),
        (bytes(61_000_000), "image too large"),
        (Path("/nonexistent/eye.jpg"), "missing image"),
        (Path("/"), "image unreadable"),
    ],
)
def test_images_that_cannot_be_used(
    bundle: Bundle, source: bytes | Path | None, reason: str
) -> None:
    result = Screener(bundle, FakeEngine()).screen(Examination.single(source))
    only_eye(result, reason)
    assert result.eyes[0].fields[0].error
    assert "nonexistent" not in result.to_json()


def test_a_picture_without_a_circle_is_ungradable(bundle: Bundle) -> None:
    import cv2

    blank = cv2.imencode(".png", np.full((128, 128, 3), (30, 60, 160), np.uint8))[1].tobytes()
    only_eye(Screener(bundle, FakeEngine()).screen(blank), "no field of view found")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["label", "gradability"])
def test_output_that_is_not_finite_is_an_engine_error(
    bundle: Bundle, bad: float, where: str
) -> None:
    engine = FakeEngine((-3.0, bad)) if where == "label" else FakeEngine(gradability=bad)
    only_eye(Screener(bundle, engine).screen(GOOD), "engine error")


def _raise(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EngineError("kernel"), "engine error"),
        (RuntimeError("/secret/path"), "internal error"),
        (MemoryError("out"), "internal error"),
        (KeyError("x"), "internal error"),
    ],
)
def test_any_error_of_the_engine_is_ungradable(
    bundle: Bundle, error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        result = Screener(bundle, FakeEngine(before=_raise(error))).screen(GOOD)
    only_eye(result, reason)
    assert "/secret" not in result.to_json()
    assert "/secret" not in caplog.text
    assert reason in caplog.text


def test_a_closed_screener_gives_ungradable(built: BuiltBundle) -> None:
    screener = Screener.open(built.folder, trusted_keys=built.trusted_keys)
    screener.close()
    only_eye(screener.screen(GOOD), "engine error")


def test_deadline_makes_late_eyes_ungradable(bundle: Bundle) -> None:
    slow = FakeEngine((9.0, 9.0), before=lambda: time.sleep(0.6))
    exam = Examination.both(od=GOOD, os=OTHER)
    result = Screener(bundle, slow).screen(exam, deadline_ms=500)
    assert [eye.reasons for eye in result.eyes] == [("deadline exceeded",)] * 2
    assert result.disposition is Decision.UNGRADABLE
    assert slow.num_runs <= 1  # the second eye is never started
    assert Screener(bundle, FakeEngine()).screen(GOOD, deadline_ms=60_000).decided


@pytest.mark.parametrize("deadline_ms", [0.0, -1.0, float("nan")])
def test_deadline_must_be_positive(bundle: Bundle, deadline_ms: float) -> None:
    with pytest.raises(ConfigError, match="deadline_ms"):
        Screener(bundle, FakeEngine()).screen(GOOD, deadline_ms=deadline_ms)


def test_expected_hash_is_compared(bundle: Bundle) -> None:
    screener = Screener(bundle, FakeEngine())
    right, wrong = hashlib.sha256(GOOD).hexdigest(), hashlib.sha256(OTHER).hexdigest()
    assert screener.screen(Examination.single(GOOD, expected_sha256=right)).decided
    result = screener.screen(Examination.single(GOOD, expected_sha256=wrong))
    only_eye(result, "image differs from its expected SHA-256")
    assert result.eyes[0].fields[0].image_sha256 == right


def test_the_worst_eye_decides_and_the_other_is_still_judged(bundle: Bundle) -> None:
    healthy, sick = Screener(bundle, FakeEngine()), Screener(bundle, FakeEngine((9.0, -9.0)))
    missing = Examination.both(od=GOOD, os=None)
    assert healthy.screen(Examination.both(od=GOOD, os=OTHER)).disposition is Decision.NO_REFER
    result = healthy.screen(missing)
    assert [e.disposition for e in result.eyes] == [Decision.NO_REFER, Decision.UNGRADABLE]
    assert result.disposition is Decision.UNGRADABLE
    assert sick.screen(missing).disposition is Decision.REFER


def test_one_picture_for_two_eyes_is_never_no_refer(bundle: Bundle) -> None:
    exam = Examination.both(od=GOOD, os=GOOD)
    result = Screener(bundle, FakeEngine()).screen(exam)
    assert result.disposition is Decision.UNGRADABLE
    assert [eye.reasons for eye in result.eyes] == [(SAME_IMAGE,)] * 2
    sick = Screener(bundle, FakeEngine((9.0, 9.0))).screen(exam)
    assert sick.disposition is Decision.REFER
    assert SAME_IMAGE in sick.warnings
    missing = Screener(bundle, FakeEngine()).screen(Examination.both(od=None, os=None))
    assert SAME_IMAGE not in missing.warnings


def test_evidence_only_when_asked(bundle: Bundle) -> None:
    screener = Screener(bundle, FakeEngine())
    assert screener.screen(GOOD).eyes[0].fields[0].evidence is None
    evidence = screener.screen(GOOD, evidence=True).eyes[0].fields[0].evidence
    assert evidence is not None
    assert evidence.maps_lhw.shape == (2, 3, 3)
    cx_px, cy_px, radius_px = evidence.field_of_view_px
    assert (cx_px, cy_px) == pytest.approx((64.0, 64.0), abs=1.0)
    assert radius_px == pytest.approx(0.45 * 128, abs=1.5)


def test_many_threads_give_what_one_gives(built: BuiltBundle) -> None:
    images = [fundus_png(seed=seed) for seed in range(4)] * 3
    with Screener.open(built.folder, trusted_keys=built.trusted_keys) as screener:
        alone = [screener.screen(data).eyes[0].fields[0] for data in images]
        with ThreadPoolExecutor(4) as pool:
            together = [result.eyes[0].fields[0] for result in pool.map(screener.screen, images)]
    assert [e.labels for e in together] == [e.labels for e in alone]
    assert [e.image_sha256 for e in together] == [hashlib.sha256(d).hexdigest() for d in images]
    assert len({e.labels for e in alone}) == 4


def test_an_uncalibrated_bundle_is_refused(tmp_path: Path) -> None:
    built = build_bundle(tmp_path / "bundle", calibrated=False)
    with pytest.raises(BundleFormatError, match="edge-screen calibrate"):
        Screener.open(built.folder, trusted_keys=built.trusted_keys, precision="fp32")


def test_an_unsigned_bundle_is_refused(tmp_path: Path) -> None:
    built = build_bundle(tmp_path / "bundle", signed=False)
    with pytest.raises(BundleSignatureError, match="unsigned"):
        Screener.open(built.folder, trusted_keys=built.trusted_keys)


def test_examinations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="no eye"):
        Examination(images=())
    with pytest.raises(ConfigError, match="more than 2 pictures of OD"):
        Examination(images=(EyeImage(eye="OD", source=GOOD),) * 3)
    with pytest.raises(ConfigError, match="EyeImage for each"):
        Examination.single([GOOD, OTHER], expected_sha256="0" * 64)
    with pytest.raises(ConfigError, match="mixes"):
        Examination(images=(EyeImage(eye="OD", source=GOOD), EyeImage(source=OTHER)))
    with pytest.raises(ConfigError, match="eye is 'left'"):
        EyeImage(eye="left", source=GOOD)
    with pytest.raises(ConfigError, match="64 hex digits"):
        EyeImage(source=GOOD, expected_sha256="ABC")
    assert EyeImage(source=GOOD, expected_sha256="AB" * 32).expected_sha256 == "ab" * 32
    with pytest.raises(TypeError, match=r"wrap it in Path\(\.\.\.\)"):
        EyeImage(source="eye.jpg")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="examination_id is int"):
        Examination.single(GOOD, examination_id=7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not bytes"):
        EyeImage(source="eye.jpg")  # type: ignore[arg-type]


def test_repr_of_an_eye_shows_neither_path_nor_bytes() -> None:
    assert "secret" not in repr(Examination.single(Path("/secret/name.jpg")))


@pytest.mark.parametrize("version", ["4.11.0", "4.5.4", "unknown"])
def test_an_opencv_that_may_mix_pictures_is_refused(
    built: BuiltBundle, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr("cv2.__version__", version)
    with pytest.raises(EngineError, match=f"{version}.*4.12.*another picture"):
        Screener.open(built.folder, trusted_keys=built.trusted_keys)


@pytest.mark.parametrize("synthetic", [True, False])
def test_every_answer_says_when_training_was_synthetic(built: BuiltBundle, synthetic: bool) -> None:
    provenance = {**built.manifest.provenance, "synthetic": synthetic}
    built.write_and_sign(replace(built.manifest, provenance=provenance, files={}))
    with Screener.open(built.folder, trusted_keys=built.trusted_keys) as screener:
        results = [screener.screen(GOOD), screener.screen(b"")]
    for result in results:
        assert (SYNTHETIC_WARNING in result.warnings) == synthetic


def test_the_fp32_model_says_whose_operating_points_it_uses(built: BuiltBundle) -> None:
    for precision, warns in (("fp32", True), ("int8", False)):
        with Screener.open(
            built.folder, trusted_keys=built.trusted_keys, precision=precision
        ) as screener:
            assert (FP32_WARNING in screener.screen(GOOD).warnings) == warns


def test_an_engine_on_a_gpu_must_give_the_golden_answers(
    built: BuiltBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    class OnGpu(FakeEngine):
        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr("edge_runtime.screener.open_engine", lambda *_, **__: OnGpu((9.0, 9.0)))
    where = {"trusted_keys": built.trusted_keys, "engine": "onnxruntime"}
    with pytest.raises(VerificationError, match="--provider cpu"):
        Screener.open(built.folder, **where, provider="cuda")
    assert closed == [True]
    Screener.open(built.folder, **where, provider="cpu").close()


def test_a_provider_that_is_not_there_is_an_error_and_nothing_runs_in_its_place(
    built: BuiltBundle,
) -> None:
    for provider in ("cuda", "tensorrt"):
        with pytest.raises(EngineError, match="onnxruntime-gpu"):
            Screener.open(
                built.folder,
                trusted_keys=built.trusted_keys,
                engine="onnxruntime",
                provider=provider,
            )


def phantom_picture(bundle: Bundle, phantom_dir: Path, eye: str) -> bytes:
    """One whose side is clear at the size of the bundle's input."""
    spec = bundle.manifest.preprocess_spec()
    with (phantom_dir / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["gradable"] == "1"]
    files = (phantom_dir / row["cfp"] for row in rows if row["eye"] == eye)
    return next(
        data for data in (path.read_bytes() for path in files) if clear_side(data, spec) == eye
    )


def clear_side(data: bytes, spec: PreprocessSpec) -> str | None:
    return guess_laterality(load_for_model(data, spec)[1].image_hwc).eye


def test_the_other_eyes_picture_is_a_warning_and_nothing_else(
    bundle: Bundle, phantom_dir: Path
) -> None:
    right, left = (
        phantom_picture(bundle, phantom_dir, "OD"),
        phantom_picture(bundle, phantom_dir, "OS"),
    )
    screener = Screener(bundle, FakeEngine())
    as_entered = screener.screen(Examination.both(od=right, os=left))
    assert not {f"OD: {OTHER_EYE}", f"OS: {OTHER_EYE}", SAME_SIDE} & set(as_entered.warnings)
    swapped = screener.screen(Examination.both(od=left, os=right))
    for eye in ("OD", "OS"):
        assert f"{eye}: {OTHER_EYE}" in swapped.warnings
    assert [eye.eye for eye in swapped.eyes] == ["OD", "OS"]
    assert [eye.disposition for eye in swapped.eyes] == [
        eye.disposition for eye in reversed(as_entered.eyes)
    ]


def test_two_pictures_of_one_side_are_a_warning(bundle: Bundle, phantom_dir: Path) -> None:
    right, left = (
        phantom_picture(bundle, phantom_dir, "OD"),
        phantom_picture(bundle, phantom_dir, "OS"),
    )
    mirrored = cv2.imdecode(np.frombuffer(left, np.uint8), cv2.IMREAD_COLOR)[:, ::-1]
    encoded = bytes(cv2.imencode(".png", np.ascontiguousarray(mirrored))[1])
    result = Screener(bundle, FakeEngine()).screen(Examination.both(od=right, os=encoded))
    assert SAME_SIDE in result.warnings
    assert f"OS: {OTHER_EYE}" in result.warnings


def test_pixels_per_degree_are_held_to_the_bundle(bundle: Bundle) -> None:
    def screened(**limits: float | None) -> ScreeningResult:
        protocol = replace(bundle.manifest.protocol, **limits)
        held = replace(bundle, manifest=replace(bundle.manifest, protocol=protocol))
        return Screener(held, FakeEngine()).screen(GOOD)

    refused = screened(min_pixels_per_degree=28.0)
    assert refused.disposition is Decision.UNGRADABLE
    assert refused.eyes[0].fields[0].quality.reasons == ("too few pixels per degree",)
    warned = screened(min_pixels_per_degree=None, warn_pixels_per_degree=35.0)
    assert "pixels per degree" in " ".join(warned.warnings)
    assert warned.eyes[0].fields[0].quality.gradable


def test_the_side_is_looked_at_only_where_an_eye_was_entered(bundle: Bundle) -> None:
    screener = Screener(bundle, FakeEngine())
    for eye, expected in (("OD", True), ("OS", True), ("unspecified", False)):
        (field,) = screener.screen(Examination.single(GOOD, eye=eye)).eyes[0].fields
        assert ("disc_side" in field.quality.measures) is expected
