"""TensorRT's INT8-calibration cache: the form of public caches, a strict reader, round trips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from calibration_graphs import build_student, images
from hypothesis import given
from hypothesis import strategies as st

from calibration.observers import RangeMethod
from calibration.onnx_graph import constants, load_model
from calibration.quantize import plan_quantization, quantize
from calibration.ranges import observe_activations, ranges_of
from calibration.trt_cache import (
    ALGORITHMS,
    CacheTarget,
    CalibrationCache,
    cache_scales,
    format_cache,
    parse_cache,
    version_number,
)
from edge_runtime.errors import BundleFormatError, ConfigError

# As TensorRT 7.2.2 wrote it for a public MNIST model, an unnamed layer included.
PUBLIC = """TRT-7202-EntropyCalibration2
data: 3c008912
conv1: 3c60dd38
(Unnamed Layer* 4) [Fully Connected]_output: 3d65992f
"""

names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1)
scales = st.floats(2.0**-100, 2.0**100, width=32)


def test_a_public_cache_is_read_and_written_back():
    cache = parse_cache(PUBLIC)
    assert (cache.version, cache.algorithm) == (7202, "EntropyCalibration2")
    assert cache.scales["data"] * 127 == pytest.approx(0.99626, rel=1e-4)  # pixels from 0 to 1
    assert "(Unnamed Layer* 4) [Fully Connected]_output" in cache.scales
    assert format_cache(cache) == PUBLIC


@given(
    st.integers(1000, 999_999),
    st.sampled_from(ALGORITHMS),
    st.dictionaries(names, scales, min_size=1),
)
def test_reading_undoes_writing(version, algorithm, by_tensor):
    cache = CalibrationCache(version=version, algorithm=algorithm, scales=by_tensor)
    assert parse_cache(format_cache(cache)) == cache


@given(st.text())
def test_any_other_text_is_refused_and_never_crashes(text):
    with pytest.raises(BundleFormatError):
        parse_cache(text)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("TRT-7202", "TRT-x", "begins with"),
        ("EntropyCalibration2", "LegacyCalibration", "LegacyCalibration"),
        ("3c008912", "3c0089", "line 2"),
        ("3c008912", "3C008912", "line 2"),
        ("data: ", "data:", "line 2"),
        ("conv1", "data", "line 3"),
        ("3c60dd38", "bc60dd38", "conv1"),
        ("3c60dd38", "00000000", "conv1"),
        ("3c60dd38", "7f800000", "conv1"),
        ("3c60dd38", "7fc00000", "conv1"),
        ("conv1: 3c60dd38", "", "line 3"),
        ("data", " data", "line 2"),
    ],
)
def test_a_damaged_cache_is_refused_with_its_place(old, new, word):
    assert old in PUBLIC
    with pytest.raises(BundleFormatError, match=word):
        parse_cache(PUBLIC.replace(old, new, 1))


def test_an_empty_cache_and_names_that_break_lines_are_refused():
    with pytest.raises(BundleFormatError, match="names no tensor"):
        parse_cache("TRT-8601-EntropyCalibration2\n")
    for name in ("a\nb", " a", ""):
        with pytest.raises(BundleFormatError, match="tensor name"):
            CalibrationCache(version=8601, algorithm=ALGORITHMS[0], scales={name: 1.0})
    with pytest.raises(BundleFormatError, match="float32"):
        CalibrationCache(version=8601, algorithm=ALGORITHMS[0], scales={"a": 0.1})


@pytest.mark.parametrize(
    ("version", "number"),
    [("8.6.1", 8601), ("8.6.1.6", 8601), ("10.3.0", 100300), ("10.13.3", 101303)],
)
def test_versions_are_numbered_as_tensorrt_does(version, number):
    assert version_number(version) == number


@pytest.mark.parametrize("version", ["11.4.0", "9.3.0", "7.2.2", "8.6", "ten", ""])
def test_a_tensorrt_without_implicit_int8_is_refused(version, tmp_path):
    with pytest.raises(ConfigError, match="TensorRT"):
        CacheTarget(path=tmp_path / "cache", tensorrt=version)


def test_scales_are_those_of_the_quantised_graph():
    model, pictures = build_student(), images()
    plan = plan_quantization(model)
    ranges = ranges_of(observe_activations(model, plan.observed, pictures), RangeMethod(name="mse"))
    found = cache_scales(model, plan, ranges)
    values = constants(load_model(quantize(model, plan, ranges)).graph)
    for name in (*plan.observed, plan.input_tensor):
        assert np.float32(found[name]) == values[f"{name}/scale"]


def test_convolutions_take_the_scale_of_the_relu_behind_them_and_heads_none():
    model = build_student()
    plan = plan_quantization(model)
    found = cache_scales(model, plan, {name: 1.0 + i for i, name in enumerate(plan.observed)})
    assert found["layer1.conv1"] == found["layer1.relu1"]
    assert found["stem"] == found["stem.relu"] == found["stem.pool"]
    assert not {"logits", "evidence", "embedding", "gradability_logit"} & set(found)
    made = [n for node in onnx.load_model_from_string(model).graph.node for n in node.output]
    assert list(found) == [name for name in made if name in found]


def test_a_tensor_read_by_others_keeps_no_borrowed_scale():
    """The last Add feeds a Relu and nothing else; a graph output is read from outside."""
    model = onnx.load_model_from_string(build_student())
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("layer1.conv1", onnx.TensorProto.FLOAT, None)
    )
    data = model.SerializeToString()
    plan = plan_quantization(data)
    assert "layer1.conv1" not in cache_scales(data, plan, dict.fromkeys(plan.observed, 1.0))


def test_target_writes_what_is_read_and_says_where_it_could_not(tmp_path):
    target = CacheTarget(path=tmp_path / "student.cache", tensorrt="10.3.0")
    target.write({"a": 0.5})
    cache = parse_cache(target.path.read_text())
    assert (cache.version, dict(cache.scales)) == (100300, {"a": 0.5})
    with pytest.raises(ConfigError, match="--trt-cache"):
        CacheTarget(path=Path(tmp_path / "no" / "x"), tensorrt="8.6.1").write({"a": 0.5})
