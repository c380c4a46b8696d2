"""`edge-screen lint-onnx` names what a file is, its broken rules, and where it builds."""

from __future__ import annotations

import json

import onnx
import pytest
from calibration_graphs import build_student, images
from click.testing import CliRunner
from test_calibration_quantize import make_portable

from calibration.cpu_form import to_cpu_form
from calibration.half import to_half
from calibration.lint_cli import lint_onnx
from edge_runtime.errors import BundleFormatError

PORTABLE = make_portable(build_student(), images())


def call(tmp_path, data: bytes, *options: str):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    return CliRunner().invoke(lint_onnx, [str(path), *options])


@pytest.mark.parametrize(
    ("data", "kind", "builds"),
    [
        (build_student(), "float", [True] * 5),
        (PORTABLE, "portable", [True] * 5),
        (to_half(PORTABLE), "half", [False, False, True, True, True]),
        (to_cpu_form(PORTABLE), "cpu", [False] * 5),
    ],
)
def test_clean_files(tmp_path, data, kind, builds):
    result = call(tmp_path, data, "--json")
    assert result.exit_code == 0
    content = json.loads(result.output)
    assert content["kind"] == kind
    assert content["findings"] == []
    assert [row["builds"] for row in content["tensorrt"]] == builds
    text = call(tmp_path, data).output
    assert "no rule is broken" in text
    assert text.count("\nTensorRT ") == 5


def test_a_broken_rule_is_printed_and_ends_with_an_error(tmp_path):
    model = onnx.load_model_from_string(PORTABLE)
    model.opset_import[0].version = 18
    result = call(tmp_path, model.SerializeToString())
    assert isinstance(result.exception, BundleFormatError)
    assert "OPSET  model: opsets are {'': 18}, not 17" in result.output
    assert "TensorRT 8.6    no: opset 18 is above its 17" in result.output


def test_no_model_and_no_file(tmp_path):
    assert isinstance(call(tmp_path, b"\xff\xff").exception, BundleFormatError)
    missing = CliRunner().invoke(lint_onnx, [str(tmp_path / "none.onnx")])
    assert isinstance(missing.exception, BundleFormatError)
