"""The doctor names what is wrong, and which engine would run."""

from __future__ import annotations

import json
import sys

import pytest
from trt_factory import ORIN
from trt_machine import make_machine

from edge_runtime.checks.doctor import cpu_features, diagnose
from edge_runtime.commands.checks_text import doctor_text

GOOD = {
    "numpy": "2.0",
    "opencv-python-headless": "4.12.0.88",
    "simplejpeg": "1.8",
    "onnxruntime": "1.20",
    "cryptography": "42",
    "click": "8.1",
    "edge-screen": "0.1.0",
}


@pytest.fixture(autouse=True)
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without TensorRT, whatever this one has."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)


def test_a_healthy_machine_has_no_problem() -> None:
    report = diagnose(find_version=GOOD.get)
    assert report.problems == ()
    assert report.can_screen
    assert report.engine == "onnxruntime"
    assert "because TensorRT is not installed" in report.engine_reason
    assert "CPUExecutionProvider" in report.providers
    assert json.loads(json.dumps(report.to_dict()))["can_screen"] is True
    assert "PROBLEM" not in doctor_text(report)
    assert "cpu" in report.askable_providers
    assert "CPUExecutionProvider (--provider cpu" in doctor_text(report)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"edge-screen-runtime": "0.1.0"}, "both edge-screen and edge-screen-runtime"),
        ({"edge-screen": None}, "not installed; install a wheel"),
        ({"opencv-python-headless": None}, "opencv-python-headless is not installed"),
    ],
)
def test_problems_are_named_with_a_remedy(changes: dict[str, str | None], problem: str) -> None:
    report = diagnose(find_version={**GOOD, **changes}.get)
    assert len(report.problems) == 1
    assert problem in report.problems[0]
    assert "PROBLEM" in doctor_text(report)


@pytest.mark.parametrize("version", ["4.10.0", "4.8.0-dev", "unknown"])
def test_an_old_opencv_cannot_screen(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr("cv2.__version__", version)
    report = diagnose(find_version=GOOD.get)
    assert not report.can_screen
    assert report.engine == "onnxruntime"
    assert version in report.problems[0]
    assert "4.12 or newer" in report.problems[0]


def test_without_onnxruntime_nothing_can_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = diagnose(find_version=GOOD.get)
    assert not report.can_screen
    assert report.engine is None
    assert report.providers == ()
    assert "onnxruntime cannot be imported" in report.problems[0]


def test_a_jetson_names_the_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    make_machine(monkeypatch)
    monkeypatch.setattr("edge_runtime.engines.trt_survey.read_device", lambda: ORIN)
    report = diagnose(find_version=GOOD.get)
    assert (report.engine, report.problems) == ("tensorrt", ())
    assert report.cuda_bindings["cuda-python"] == ""
    assert "CUDA       cuda-python found, pycuda not installed" in doctor_text(report)


@pytest.mark.parametrize(
    ("version", "binding", "problem"),
    [
        ("10.3.0", "none", "no Python binding of CUDA"),
        ("10.3.0", "cuda-python", "no CUDA driver here"),
    ],
)
def test_a_tensorrt_that_cannot_run_is_a_problem_and_not_hidden(
    monkeypatch: pytest.MonkeyPatch, version: str, binding: str, problem: str
) -> None:
    make_machine(monkeypatch, version=version, binding=binding)
    if "driver" not in problem:
        monkeypatch.setattr("edge_runtime.engines.trt_survey.read_device", lambda: ORIN)
    report = diagnose(find_version=GOOD.get)
    assert problem in report.problems[0]
    assert report.engine is None
    assert not report.can_screen
    assert "--engine onnxruntime" in report.engine_reason


def test_a_tensorrt_of_jetpack_5_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = make_machine(monkeypatch)
    machine.tensorrt.module.__version__ = "8.5.2"
    monkeypatch.setattr("edge_runtime.engines.trt_survey.read_device", lambda: ORIN)
    report = diagnose(find_version=GOOD.get)
    assert "JetPack 5 is not supported" in report.problems[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512_vnni\nflags\t: avx2\n", ("avx2", "avx512_vnni")),
        ("processor : 0\nFeatures\t: fp asimd asimddp i8mm\n", ("asimd", "asimddp", "i8mm")),
        ("", ()),
        ("flagship : avx2", ()),
    ],
)
def test_cpu_features_of_both_architectures(text: str, expected: tuple[str, ...]) -> None:
    assert cpu_features(text) == expected


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        ("10.3.0", ("int8     model.int8.onnx, weakly typed",)),
        (
            "11.4.0.106",
            ("model.int8.onnx, strongly typed", "fp16     none: TensorRT 11 has no FP16"),
        ),
    ],
)
def test_tensorrt_is_described_by_version_typing_and_file(
    version: str, lines: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.engines.trt_survey.read_device", lambda: ORIN)
    make_machine(monkeypatch, version=version)
    report = diagnose(find_version=GOOD.get)
    text = doctor_text(report)
    assert f"TensorRT   {version} (Orin, 8.7)" in text
    for line in lines:
        assert line in text
    assert "TensorRT for a bundle whose engine" in report.engine_reason
    assert json.loads(json.dumps(report.to_dict()))["tensorrt"]["version"] == version
