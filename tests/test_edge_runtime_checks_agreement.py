"""An engine beside ONNX Runtime: what counts as the same, what is listed, what is signed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bundle_factory import BuiltBundle, build_bundle, fundus_png, tiny_onnx
from click.testing import CliRunner, Result
from trt_factory import ORIN, build_here
from trt_machine import VERSIONS, Machine, make_machine

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.checks.agreement import Agreement, EngineRequest, Flip, compare_engines
from edge_runtime.checks.verify import verify_bundle
from edge_runtime.cli import main
from edge_runtime.engines.trt_plan import ensure_plan
from edge_runtime.errors import (
    BundleIntegrityError,
    BundleSignatureError,
    ConfigError,
    VerificationError,
)
from edge_runtime.signed_report import read_signed_report, write_signed_report
from edge_runtime.signing import generate_keypair


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltBundle:
    return build_bundle(tmp_path_factory.mktemp("agreement") / "bundle")


@pytest.fixture(scope="module")
def bundle(built: BuiltBundle) -> Bundle:
    return read_bundle(built.folder, trusted_keys=built.trusted_keys)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three gradable photographs, one black one, one that is damaged, and a text."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.png").write_bytes(fundus_png(seed=seed))
    (folder / "broken.JPG").write_bytes(b"not an image")
    (folder / "cut.png").write_bytes(fundus_png(seed=9)[:-40])
    (folder / "notes.txt").write_text("not a photograph")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def jetson(monkeypatch: pytest.MonkeyPatch, bundle: Bundle, cache: Path) -> Callable[..., Machine]:
    """Makes a machine on which the bundle's engine was built."""
    monkeypatch.setattr("edge_runtime.engines.trt_plan.run_build", build_here)
    monkeypatch.setattr("edge_runtime.engines.trt_plan.read_device", lambda: ORIN)

    def make(version: str = "10.3.0", precision: str = "int8") -> Machine:
        machine = make_machine(monkeypatch, version=version)
        ensure_plan(bundle, cache_dir=cache, precision=precision)
        return machine

    return make


def shifted(machine: Machine, by: float) -> None:
    """Let the engine answer with other logits."""

    def compute(session: object, names: list[str], inputs: dict[str, object]) -> list[np.ndarray]:
        answer = session.run(names, inputs)  # type: ignore[attr-defined]
        return [v + by if n == "logits" else v for n, v in zip(names, answer, strict=True)]

    machine.tensorrt.compute = compute  # type: ignore[assignment]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_that_computes_the_same_agrees(
    jetson: Callable[..., Machine], bundle: Bundle, cache: Path, images: Path, version: str
) -> None:
    machine = jetson(version)
    found = compare_engines(
        bundle, EngineRequest(engine="tensorrt", pictures_dir=images, cache_dir=cache)
    )
    assert (found.name, found.precision, found.reference) == ("tensorrt", "int8", "int8")
    assert (found.num_golden, found.num_pictures, len(found.not_compared)) == (3, 3, 2)
    assert found.max_difference == 0.0
    assert found.flips == ()
    assert found.problem is None
    assert found.details["tensorrt"] == version
    machine.assert_clean()


def test_onnxruntime_can_be_verified_where_there_is_no_gpu(bundle: Bundle, images: Path) -> None:
    for precision in ("int8", "fp32"):
        request = EngineRequest(engine="onnxruntime", precision=precision, pictures_dir=images)
        found = compare_engines(bundle, request)
        assert found.problem is None
        assert (found.reference, found.max_difference) == (precision, 0.0)


def test_fp16_answers_to_fp32(jetson: Callable[..., Machine], bundle: Bundle, cache: Path) -> None:
    jetson("10.3.0", "fp16")
    request = EngineRequest(engine="tensorrt", precision="fp16", cache_dir=cache)
    found = compare_engines(bundle, request)
    assert found.reference == "fp32"
    assert found.atol_probability == bundle.manifest.golden.atol_probability_int8


def test_every_flip_is_listed_with_both_probabilities(
    jetson: Callable[..., Machine], bundle: Bundle, cache: Path, images: Path
) -> None:
    machine = jetson()
    request = EngineRequest(engine="tensorrt", pictures_dir=images, cache_dir=cache)
    shifted(machine, 1.0)
    found = compare_engines(bundle, request)
    assert found.max_difference > 0.1
    assert found.problem is not None
    assert found.flips
    for flip in found.flips:
        assert flip.probability_reference < flip.threshold <= flip.probability_other
        assert flip.picture.startswith("golden") or len(flip.picture) == 64
    assert found.flips_int8_fp32 == ()


def agreement(**changes: object) -> Agreement:
    """An agreement without anything to object to, with changes."""
    values: dict[str, object] = {
        "name": "tensorrt",
        "precision": "int8",
        "details": {},
        "warnings": (),
        "reference": "int8",
        "atol_probability": 0.03,
        "num_golden": 3,
        "num_pictures": 0,
        "not_compared": (),
        "max_difference": 0.01,
        "flips": (),
        "max_difference_int8_fp32": 0.5,
        "flips_int8_fp32": (),
    }
    return Agreement(**{**values, **changes})  # type: ignore[arg-type]


def flip(*, is_close: bool) -> Flip:
    return Flip(
        picture="golden 0",
        label="glaucoma",
        threshold=0.5,
        probability_reference=0.49,
        probability_other=0.51,
        is_close=is_close,
    )


def test_only_a_clear_flip_counts() -> None:
    assert agreement().problem is None
    assert agreement(flips=(flip(is_close=True),)).problem is None
    assert agreement(flips=(flip(is_close=False),)).problem == "1 decisions differ"
    assert agreement(flips_int8_fp32=(flip(is_close=False),)).problem is None
    for difference in (0.031, float("nan")):
        assert "off by more" in str(agreement(max_difference=difference).problem)


def test_photographs_that_all_reach_no_model_are_no_agreement(
    bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    found = compare_engines(bundle, EngineRequest(engine="onnxruntime", pictures_dir=tmp_path))
    assert "no photograph of the folder reaches the model" in str(found.problem)


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_without_photographs_is_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    if name == "empty":
        (tmp_path / name).mkdir()
    request = EngineRequest(engine="onnxruntime", pictures_dir=tmp_path / name)
    with pytest.raises(ConfigError, match=r"has no photograph|cannot be read"):
        compare_engines(bundle, request)


def test_auto_cannot_be_verified() -> None:
    with pytest.raises(ConfigError, match="name 'onnxruntime' or 'tensorrt'"):
        EngineRequest(engine="auto")


def test_the_golden_checks_are_those_of_onnxruntime_also_on_a_jetson(
    jetson: Callable[..., Machine],
    built: BuiltBundle,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGE_SCREEN_ENGINE_CACHE", str(cache))
    machine = jetson()
    shifted(machine, 1.0)
    report = verify_bundle(built.folder, trusted_keys=built.trusted_keys)
    assert report.passed
    assert machine.gpu.calls == []


def test_an_engine_that_fails_is_a_check_that_failed(
    jetson: Callable[..., Machine], built: BuiltBundle, cache: Path
) -> None:
    machine = jetson()
    machine.gpu.num_devices = 0
    report = verify_bundle(
        built.folder,
        trusted_keys=built.trusted_keys,
        request=EngineRequest(engine="tensorrt", cache_dir=cache),
    )
    assert [check.name for check in report.checks if not check.passed] == ["engine tensorrt"]
    assert report.agreement is None
    with pytest.raises(VerificationError, match="no GPU here"):
        report.raise_if_failed()


# -- the command


def verify(built: BuiltBundle, *arguments: object) -> Result:
    words = ["verify", built.folder, "--trusted-keys", built.trusted_keys, *arguments]
    return CliRunner().invoke(main, [str(word) for word in words])


def test_the_command_writes_a_signed_report(
    jetson: Callable[..., Machine], built: BuiltBundle, cache: Path, images: Path, tmp_path: Path
) -> None:
    jetson()
    keys, path = generate_keypair(tmp_path / "device"), tmp_path / "report.json"
    result = verify(
        built, "--engine", "tensorrt", "--cache-dir", cache, "--images", images,
        "--report", path, "--signing-key", keys.private_key_path, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["agreement"]["num_pictures"] == 3
    report, key_id = read_signed_report(path, keys.public_key_path)
    assert key_id == keys.key_id
    assert report["passed"] is True
    assert report["bundle_sha256"] == json.loads(result.stdout)["bundle_sha256"]
    assert {"verified_at", "machine", "checks", "notice"} <= set(report)
    text = path.read_text()
    assert str(images) not in text
    assert "0.png" not in text


def test_a_failed_report_is_written_too_and_the_exit_code_is_10(
    jetson: Callable[..., Machine], built: BuiltBundle, cache: Path, images: Path, tmp_path: Path
) -> None:
    shifted(jetson(), 1.0)
    keys, path = generate_keypair(tmp_path / "device"), tmp_path / "report.json"
    result = verify(
        built, "--engine", "tensorrt", "--cache-dir", cache, "--images", images,
        "--report", path, "--signing-key", keys.private_key_path,
    )  # fmt: skip
    assert result.exit_code == 10
    assert "NOT REPRODUCED" in result.output
    line = r"golden 0  \w+: onnxruntime int8 0\.\d{4}, tensorrt int8 0\.\d{4}, threshold 0\.5"
    assert re.search(line, result.output)
    report, _ = read_signed_report(path, keys.public_key_path)
    assert report["passed"] is False
    assert report["agreement"]["flips"]  # type: ignore[index,call-overload]


def test_the_command_works_without_a_gpu(built: BuiltBundle, images: Path) -> None:
    result = verify(built, "--engine", "onnxruntime", "--images", images)
    assert result.exit_code == 0, result.output
    assert "engine onnxruntime" in result.output
    assert "3 golden pictures and 3 photographs (2 ungradable ones left out)" in result.output
    assert result.output.count("not compared:") == 2


def test_an_engine_that_is_not_there_does_not_condemn_the_bundle(built: BuiltBundle) -> None:
    result = verify(built, "--engine", "tensorrt")
    assert result.exit_code == 10
    assert "TensorRT cannot be imported" in result.stderr
    assert "do not screen with that engine here; every other check passed" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--images", "x"), ("--report", "x"), ("--signing-key", "x"), ("--engine", "auto")],
)
def test_options_that_need_each_other(
    built: BuiltBundle, tmp_path: Path, arguments: tuple[str, str]
) -> None:
    option, value = arguments
    value = value if option == "--engine" else str(tmp_path / value)
    assert verify(built, option, value).exit_code == 2


def test_a_changed_report_does_not_verify(tmp_path: Path) -> None:
    keys, path = generate_keypair(tmp_path / "device"), tmp_path / "report.json"
    write_signed_report(path, {"passed": False}, keys.private_key_path)
    path.write_text(path.read_text().replace("false", "true"))
    with pytest.raises(BundleSignatureError, match=r"does not fit report\.json"):
        read_signed_report(path, keys.public_key_path)
    path.with_name("report.json.sig").unlink()
    with pytest.raises(BundleIntegrityError, match=r"report\.json\.sig is missing"):
        read_signed_report(path, keys.public_key_path)


def test_a_report_of_another_device_does_not_verify(tmp_path: Path) -> None:
    keys, others = generate_keypair(tmp_path / "a"), generate_keypair(tmp_path / "b")
    path = tmp_path / "report.json"
    write_signed_report(path, {"passed": True}, keys.private_key_path)
    with pytest.raises(BundleSignatureError, match=r"report\.json was made by key"):
        read_signed_report(path, others.public_key_path)


def test_a_report_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    keys = generate_keypair(tmp_path / "device")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_signed_report(tmp_path / "no" / "report.json", {}, keys.private_key_path)


def test_another_int8_model_shows_against_fp32(tmp_path: Path) -> None:
    other = build_bundle(
        tmp_path / "bundle", models={"int8": tiny_onnx(seed=5), "int8_cpu": tiny_onnx(seed=5)}
    )
    bundle = read_bundle(other.folder, trusted_keys=other.trusted_keys)
    found = compare_engines(bundle, EngineRequest(engine="onnxruntime"))
    assert found.problem is None
    assert found.max_difference_int8_fp32 > 0.0
