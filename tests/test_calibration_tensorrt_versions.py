"""Which file builds where: opset ceilings, operators, zero points, typing."""

from __future__ import annotations

import onnx
import pytest
from calibration_graphs import build_student, images
from test_calibration_quantize import make_portable

from calibration.cpu_form import to_cpu_form
from calibration.half import to_half
from calibration.tensorrt_versions import VERSIONS, judge_builds, unsupported_operators
from edge_runtime.errors import BundleFormatError

PORTABLE = make_portable(build_student(), images())
HALF = to_half(PORTABLE)


def builds(model: bytes) -> dict[str, bool]:
    return {verdict.version: verdict.builds for verdict in judge_builds(model)}


def reasons(model: bytes, version: str) -> str:
    return "; ".join(next(v.reasons for v in judge_builds(model) if v.version == version))


def test_the_bundle_files_build_where_the_guide_says():
    assert builds(build_student()) == dict.fromkeys(("8.6", "10.3", "10.13", "10.16", "11.4"), True)
    assert all(builds(PORTABLE).values())
    assert builds(HALF) == {
        "8.6": False,
        "10.3": False,
        "10.13": True,
        "10.16": True,
        "11.4": True,
    }
    assert not any(builds(to_cpu_form(PORTABLE)).values())


def test_the_reasons_are_named():
    assert "opset 19 is above its 17" in reasons(HALF, "8.6")
    assert "strong typing" in reasons(HALF, "10.3")
    assert "zero points of type int32, uint8" in reasons(to_cpu_form(PORTABLE), "11.4")


@pytest.mark.parametrize("opset", range(17, 27))
def test_no_version_takes_an_opset_above_its_ceiling(opset):
    model = onnx.load_model_from_string(build_student())
    model.opset_import[0].version = opset
    ceilings = {version.name: version.max_opset for version in VERSIONS}
    for name, possible in builds(model.SerializeToString()).items():
        assert possible == (opset <= ceilings[name])


@pytest.mark.parametrize("kind", ["QLinearConv", "ConvInteger", "DynamicQuantizeLinear", "Einsum2"])
def test_operators_without_an_importer(kind):
    model = onnx.load_model_from_string(build_student())
    model.graph.node[3].op_type = kind
    for version in VERSIONS:
        assert f"no importer for {kind}" in reasons(model.SerializeToString(), version.name)
    assert unsupported_operators([kind, "Conv"]) == (kind,)


def test_hard_swish_builds_from_version_10():
    model = onnx.load_model_from_string(build_student())
    model.graph.node[4].op_type = "HardSwish"
    assert list(builds(model.SerializeToString()).values()) == [False, True, True, True, True]


def test_typing_follows_from_the_version():
    typings = {verdict.version: verdict.typing for verdict in judge_builds(PORTABLE)}
    assert typings["8.6"] == "weak: INT8 and FP16 flags"
    assert typings["11.4"] == "strong: layers without Q/DQ run in FP32"
    assert judge_builds(HALF)[-1].typing.startswith("strong: INT8 where Q/DQ say so, FP16")


def test_not_a_model():
    with pytest.raises(BundleFormatError, match="not an ONNX model"):
        judge_builds(b"\xff\xff\xff")
