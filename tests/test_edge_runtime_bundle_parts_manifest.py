from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
from bundle_factory import tiny_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.bundle_parts.manifest import HeldOut, LabelSpec, Manifest, OperatingPoint
from edge_runtime.errors import BundleFormatError, ConfigError
from edge_runtime.strict_json import (
    canonical_json,
    canonical_sha256,
    dataclass_to_dict,
    parse_json_object,
)

_SHARES = st.floats(0.0, 1.0)
_INTERVALS = st.tuples(_SHARES, _SHARES).map(lambda pair: tuple(sorted(pair)))
_TEXTS = st.text("abcXYZ é≥%>=.-", min_size=1, max_size=40).map(str.strip).filter(bool)
_NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True)
_COUNTS = st.integers(1, 10**9)
_HELD_OUT = st.builds(
    HeldOut,
    num_folds=st.integers(2, 20),
    sensitivity=_SHARES,
    sensitivity_interval=_INTERVALS,
    specificity=_SHARES,
    specificity_interval=_INTERVALS,
)
_POINTS = st.builds(
    OperatingPoint,
    threshold=_SHARES,
    target=_TEXTS,
    sensitivity=_SHARES,
    sensitivity_interval=_INTERVALS,
    specificity=_SHARES,
    specificity_interval=_INTERVALS,
    num_positive=_COUNTS,
    num_negative=_COUNTS,
    split=_TEXTS,
    held_out=_HELD_OUT,
)
_OUTPUTS = st.builds(
    LabelSpec,
    name=_NAMES,
    temperature=st.none() | st.floats(1e-6, 1e6),
    operating_point=st.none() | _POINTS,
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
).filter(lambda value: not isinstance(value, int) or abs(value) < 2**60)


def _as_json(manifest: Manifest) -> dict:
    return json.loads(json.dumps(manifest.to_dict(), allow_nan=False))


def _set(value, path, content):
    """Return a copy of parsed JSON in which the entry at `path` is replaced."""
    changed = copy.deepcopy(value)
    *parents, last = path
    target = changed
    for key in parents:
        target = target[key]
    target[last] = content
    return changed


def _paths(value, path=()):
    """Yield the path of every object inside parsed JSON that has a fixed set of keys."""
    free = {"preprocessing", "quality_limits", "metrics", "provenance", "files"}
    if isinstance(value, dict):
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, (dict, list)) and key not in free:
            yield from _paths(item, (*path, key))


def _spell(path) -> str:
    words = [f"[{key}]" if isinstance(key, int) else f".{key}" for key in path]
    return "".join(words).removeprefix(".")


def _at(value, path):
    for key in path:
        value = value[key]
    return value


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(_OUTPUTS, min_size=1, max_size=4, unique_by=lambda label: label.name),
    metrics=st.dictionaries(st.text(max_size=5), _JSON, max_size=3),
    text=_TEXTS,
)
def test_round_trip_keeps_every_value(labels, metrics, text):
    base = tiny_manifest(calibrated=False).to_dict()
    manifest = Manifest.from_dict(
        {
            **base,
            "labels": [dataclass_to_dict(label) for label in labels],
            "gradability": {**base["gradability"], "name": "x" * 30},
            "metrics": metrics,
            "intended_use": text,
        }
    )
    assert manifest.labels == tuple(labels)
    assert Manifest.from_dict(_as_json(manifest)) == manifest


def test_calibrated_manifest_round_trip():
    manifest = tiny_manifest()
    assert Manifest.from_dict(_as_json(manifest)) == manifest
    assert manifest.label_names == ("macular_edema", "glaucoma")


def test_calibrated_needs_every_temperature_point_and_int8():
    whole = _as_json(tiny_manifest())
    assert Manifest.from_dict(whole).calibrated
    assert not tiny_manifest(calibrated=False).calibrated
    for path in (("labels", 1), ("gradability",)):
        for key in ("temperature", "operating_point"):
            assert not Manifest.from_dict(_set(whole, (*path, key), None)).calibrated
    assert not Manifest.from_dict(_set(whole, ("int8",), None)).calibrated


_OBJECTS = list(_paths(_as_json(tiny_manifest())))


def test_objects_with_fixed_keys_are_found():
    assert {_spell(path) for path in _OBJECTS} >= {
        "",
        "labels[1].operating_point",
        "gradability.operating_point",
        "protocol",
        "golden",
        "int8.gate.labels[0]",
    }


@pytest.mark.parametrize("path", _OBJECTS, ids=_spell)
def test_every_missing_and_unknown_key_is_named_with_its_path(path):
    whole = _as_json(tiny_manifest())
    for key in _at(whole, path):
        broken = copy.deepcopy(whole)
        del _at(broken, path)[key]
        with pytest.raises(BundleFormatError) as caught:
            Manifest.from_dict(broken)
        assert str(caught.value).startswith(f"bundle.json: {_spell((*path, key))} is missing")
    broken = copy.deepcopy(whole)
    _at(broken, path)["surprise"] = 1
    with pytest.raises(BundleFormatError) as caught:
        Manifest.from_dict(broken)
    assert str(caught.value).startswith(f"bundle.json: {_spell((*path, 'surprise'))} is an unknown")


@pytest.mark.parametrize("path", _OBJECTS, ids=_spell)
def test_every_value_of_a_wrong_type_is_refused(path):
    whole = _as_json(tiny_manifest())
    for key, value in _at(whole, path).items():
        wrong = {"a": []} if not isinstance(value, dict) else [1]
        with pytest.raises(BundleFormatError, match=r"bundle\.json: "):
            Manifest.from_dict(_set(whole, (*path, key), wrong))


_POINT = ("labels", 0, "operating_point")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*_POINT, "threshold"), 1.01),
        ((*_POINT, "threshold"), -0.01),
        ((*_POINT, "threshold"), True),
        ((*_POINT, "threshold"), "0.5"),
        ((*_POINT, "threshold"), None),
        ((*_POINT, "threshold"), math.nan),
        ((*_POINT, "threshold"), 10**400),
        ((*_POINT, "sensitivity"), 1.5),
        ((*_POINT, "sensitivity_interval"), [0.9, 0.1]),
        ((*_POINT, "sensitivity_interval"), [0.9]),
        ((*_POINT, "sensitivity_interval"), [0.1, 0.2, 0.3]),
        ((*_POINT, "specificity_interval"), [-0.1, 0.5]),
        ((*_POINT, "specificity_interval"), [0.5, 1.1]),
        ((*_POINT, "num_positive"), 0),
        ((*_POINT, "num_negative"), 2.0),
        ((*_POINT, "target"), ""),
        ((*_POINT, "split"), " val"),
        (("labels", 0, "temperature"), 0.0),
        (("labels", 0, "temperature"), -1.0),
        (("labels", 0, "temperature"), math.inf),
        (("labels", 0, "name"), "no spaces"),
        (("labels", 0, "name"), "../up"),
        (("gradability", "temperature"), 0),
        (("protocol", "fields_per_eye"), 0),
        (("protocol", "fields_per_eye"), 3),
        (("protocol", "field_degrees"), 0.0),
        (("protocol", "field_degrees"), 270.0),
        (("protocol", "min_pixels_per_degree"), 0.0),
        (("protocol", "min_pixels_per_degree"), "28"),
        (("protocol", "warn_pixels_per_degree"), -35.0),
        (("protocol", "warn_pixels_per_degree"), 0.5),
        (("protocol", "cameras"), []),
        (("protocol", "cameras"), ["a", "a"]),
        (("golden", "num_images"), 0),
        (("golden", "atol_probability_fp32"), -1e-9),
        (("int8", "percentile"), 0.0),
        (("int8", "percentile"), 100.1),
        (("int8", "fingerprint"), "0" * 63),
        (("int8", "fingerprint"), "0" * 63 + "G"),
        (("int8", "num_images"), 0),
        (("int8", "float_nodes"), ["a", "a"]),
        (("int8", "gate", "status"), "refused"),
        (("int8", "gate", "reasons"), ["passed, but"]),
        (("gradability", "abstention"), {"low": 0.1, "risk": 0.1, "num_patients": 40}),
        (("labels", 0, "abstention"), {"low": 0.6, "risk": 0.1, "num_patients": 40}),
        (("labels", 0, "abstention"), {"low": 0.1, "risk": 0.1, "num_patients": 8}),
        (("labels", 0, "abstention"), {"low": 0.1, "risk": 0.0, "num_patients": 40}),
        (("labels", 0, "operating_point", "held_out", "num_folds"), 1),
        (("int8", "gate", "labels"), []),
        (("int8", "gate", "labels", 0, "drop_interval"), [0.1, 0.0]),
        (("int8", "gate", "labels", 0, "auroc_int8"), 1.2),
        (("int8", "gate", "decision_flips"), -1),
        (("name",), ""),
        (("version",), "1\n2"),
        (("intended_use",), "x" * 201),
        (("preprocessing_sha256",), "0" * 64),
        (("preprocessing", "size_px"), 64),
        (("schema_version",), 1),
        (("schema_version",), 1.0),
        (("labels",), []),
        (("quality_limits",), {}),
        (("metrics", "auroc_mean"), math.nan),
        (("metrics", "auroc_mean"), np.float32(0.5)),
        (("provenance", "deep"), json.loads("[" * 40 + "]" * 40)),
        (("files",), {"model.fp32.onnx": "0" * 63}),
        (("files",), {"model.fp32.onnx": 5}),
    ],
    ids=lambda value: _spell(value) if isinstance(value, tuple) else str(value)[:20],
)
def test_impossible_values_are_refused_and_named(path, value):
    broken = _set(_as_json(tiny_manifest()), path, value)
    with pytest.raises(BundleFormatError) as caught:
        Manifest.from_dict(broken)
    named = "preprocessing_sha256" if path[0] == "preprocessing" else _spell(path)
    assert str(caught.value).startswith(f"bundle.json: {named}")


def test_a_bundle_of_another_version_is_called_that_and_not_incomplete():
    older = _as_json(tiny_manifest()) | {"schema_version": 1}
    del older["labels"][0]["abstention"]
    with pytest.raises(BundleFormatError, match=r"schema_version is 1 .* another version"):
        Manifest.from_dict(older)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "bundle.json", "x.onnx", ""])
def test_files_outside_the_known_set_are_refused(name):
    broken = {**_as_json(tiny_manifest()), "files": {name: "0" * 64}}
    with pytest.raises(BundleFormatError, match="unknown file"):
        Manifest.from_dict(broken)


def test_int8_files_belong_to_an_int8_record():
    assert "model.int8.onnx" in tiny_manifest().expected_files
    uncalibrated = tiny_manifest(calibrated=False)
    assert "model.int8.onnx" not in uncalibrated.expected_files
    with pytest.raises(BundleFormatError, match=r"files\.model\.int8\.onnx"):
        Manifest.from_dict({**_as_json(uncalibrated), "files": {"model.int8.onnx": "0" * 64}})


def test_names_are_unique_over_labels_and_gradability():
    whole = _as_json(tiny_manifest(calibrated=False))
    for path, name in ((("labels", 0, "name"), "glaucoma"), (("gradability", "name"), "glaucoma")):
        with pytest.raises(BundleFormatError, match="free of duplicates"):
            Manifest.from_dict(_set(whole, path, name))


def test_gate_must_have_judged_every_label_and_no_other():
    whole = _as_json(tiny_manifest())
    labels = whole["int8"]["gate"]["labels"]
    foreign = {**labels[0], "name": "amd"}
    for judged in (labels[:1], [*labels, foreign]):
        with pytest.raises(BundleFormatError, match=r"int8\.gate\.labels"):
            Manifest.from_dict(_set(whole, ("int8", "gate", "labels"), judged))
    gradable = {**labels[0], "name": "gradable"}
    Manifest.from_dict(_set(whole, ("int8", "gate", "labels"), [*labels, gradable]))


def test_constructor_refuses_with_config_error():
    with pytest.raises(ConfigError, match=r"temperature is 0\.0"):
        LabelSpec(name="glaucoma", temperature=0.0, operating_point=None)


def test_preprocessing_hash_is_the_one_that_preprocessing_computes():
    manifest = tiny_manifest()
    spec = manifest.preprocess_spec()
    assert spec.sha256() == manifest.preprocessing_sha256
    assert canonical_sha256(spec.to_dict()) == spec.sha256()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "key 'a' appears more than once"),
        ('{"b": {"a": 1, "c": 0, "a": 1}}', "key 'a' appears more than once"),
        ('{"a": NaN}', "NaN"),
        ('{"a": [-Infinity]}', "-Infinity"),
        ("[1]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("", "not valid JSON"),
        ('{"a": 1} x', "not valid JSON"),
        ('{"a": ' + "[" * 100_000, "not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_json_that_could_be_read_in_two_ways_is_refused(text, reason):
    with pytest.raises(BundleFormatError, match=reason):
        parse_json_object(text.encode(), name="bundle.json")


@pytest.mark.parametrize("data", [b"\xff\xfe{}", b'{"a": "\xc3"}', b"\xef\xbb\xbf{}"])
def test_bytes_that_are_not_plain_utf8_are_refused(data):
    with pytest.raises(BundleFormatError, match="not valid JSON"):
        parse_json_object(data, name="bundle.json")


def test_numbers_too_large_for_a_float_are_refused():
    whole = {**_as_json(tiny_manifest()), "metrics": parse_json_object(b'{"a": 1e999}', name="x")}
    with pytest.raises(BundleFormatError, match=r"metrics\.a is inf"):
        Manifest.from_dict(whole)


def test_many_keys_are_checked_in_linear_time():
    text = "{" + ",".join(f'"{index}": 0' for index in range(100_000)) + "}"
    assert len(parse_json_object(text.encode(), name="x")) == 100_000


def test_canonical_json_does_not_depend_on_key_order():
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == b'{"a":[1.5,"\\u00e9"],"b":1}'
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": math.nan})
