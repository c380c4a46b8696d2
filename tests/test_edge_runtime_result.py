"""The typed answer: strict JSON, and no way to construct an unsafe 'no refer'."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import edge_runtime
from edge_runtime.errors import DataError
from edge_runtime.reports.result_words import told_apart
from edge_runtime.result import (
    EVIDENCE_CAPTION,
    NOTICE,
    BundleIdentity,
    Decision,
    EngineIdentity,
    Evidence,
    EyeQuality,
    EyeResult,
    FieldResult,
    LabelResult,
    ScreeningResult,
)

GOOD = EyeQuality(
    gradable=True,
    gradable_probability=0.9,
    gradable_threshold=0.5,
    reasons=(),
    measures={"luma": 90.123456789},
)
BAD = EyeQuality(
    gradable=False,
    gradable_probability=None,
    gradable_threshold=0.5,
    reasons=("blur",),
    measures={"luma": math.nan},
)
NEGATIVE = LabelResult(name="glaucoma", probability=0.2, threshold=0.5)
POSITIVE = LabelResult(name="amd", probability=0.5, threshold=0.5)


def field(**changes: object) -> FieldResult:
    """A clean 'no refer' field with changes."""
    values: dict[str, object] = {
        "image_sha256": "0" * 64,
        "input_sha256": "a" * 64,
        "disposition": Decision.NO_REFER,
        "quality": GOOD,
        "labels": (NEGATIVE,),
        "timings_ms": {"total": 1.23456},
    }
    return FieldResult(**{**values, **changes})  # type: ignore[arg-type]


def eye(*fields: FieldResult, name: str = "OD") -> EyeResult:
    """An eye that is what its first field is."""
    return EyeResult(eye=name, disposition=fields[0].disposition, fields=fields)


CLEAR = field()
UNKNOWN = field(disposition=Decision.UNGRADABLE, quality=BAD, labels=(), image_sha256="1" * 64,
                input_sha256=None)  # fmt: skip
SICK = field(disposition=Decision.REFER, labels=(POSITIVE,), image_sha256="2" * 64,
             input_sha256="b" * 64)  # fmt: skip


def result(disposition: Decision, *eyes: EyeResult) -> ScreeningResult:
    """A result around the eyes."""
    return ScreeningResult(
        examination_id="e1",
        disposition=disposition,
        eyes=eyes,
        bundle=BundleIdentity(name="tiny", version="1", sha256="a" * 64, key_id="k"),
        engine=EngineIdentity(name="onnxruntime", precision="int8", int8_gate="passed"),
        warnings=("w",),
    )


def test_label_is_positive_at_the_threshold_itself() -> None:
    assert POSITIVE.is_positive
    assert POSITIVE.to_dict()["decision"] == "positive"
    assert not NEGATIVE.is_positive


@pytest.mark.parametrize("value", [math.nan, -0.01, 1.01, math.inf])
def test_label_refuses_what_is_no_probability(value: float) -> None:
    with pytest.raises(ValueError, match="not within"):
        LabelResult(name="x", probability=value, threshold=0.5)
    with pytest.raises(ValueError, match="not within"):
        LabelResult(name="x", probability=0.5, threshold=value)


@pytest.mark.parametrize("low", [math.nan, -0.1, 0.51])
def test_a_band_lies_below_its_threshold(low: float) -> None:
    with pytest.raises(ValueError, match="band of 'x'"):
        LabelResult(name="x", probability=0.1, threshold=0.5, doubtful_from=low)


def test_no_refer_cannot_be_constructed_with_a_doubtful_label() -> None:
    doubtful = LabelResult(name="x", probability=0.3, threshold=0.5, doubtful_from=0.2)
    with pytest.raises(ValueError, match="doubtful label"):
        field(labels=(NEGATIVE, doubtful))
    assert field(disposition=Decision.REFER, labels=(doubtful, POSITIVE)).any_positive


def test_quality_flag_and_reasons_must_agree() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        EyeQuality(
            gradable=True,
            gradable_probability=None,
            gradable_threshold=0.5,
            reasons=("dark",),
            measures={},
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"error": "engine failed"},
        {"image_sha256": None, "input_sha256": None},
        {"quality": BAD},
        {"labels": ()},
        {"labels": (NEGATIVE, POSITIVE)},
    ],
)
def test_no_refer_cannot_be_constructed_for_a_field_that_was_not_judged(
    changes: dict[str, object],
) -> None:
    assert field().disposition is Decision.NO_REFER
    with pytest.raises(ValueError, match="no_refer"):
        field(**changes)


def test_refer_needs_a_positive_label() -> None:
    with pytest.raises(ValueError, match="contradicts"):
        field(disposition=Decision.REFER)


def test_examination_cannot_be_better_than_its_worst_eye() -> None:
    clear, unknown, sick = eye(CLEAR), eye(UNKNOWN, name="OS"), eye(SICK, name="unspecified")
    for eyes in [(), (unknown,), (clear, unknown), (clear, sick), (sick, unknown)]:
        with pytest.raises(ValueError, match="contradicts the eyes"):
            result(Decision.NO_REFER, *eyes)
    for eyes in [(sick,), (sick, unknown), (sick, clear)]:
        with pytest.raises(ValueError, match="contradicts the eyes"):
            result(Decision.UNGRADABLE, *eyes)
    assert result(Decision.NO_REFER, clear).decided
    assert not result(Decision.UNGRADABLE, unknown).decided


def test_an_eye_is_listed_once() -> None:
    with pytest.raises(ValueError, match="listed twice"):
        result(Decision.REFER, eye(SICK), eye(UNKNOWN))


def test_an_eye_cannot_be_better_than_its_worst_field() -> None:
    with pytest.raises(ValueError, match="without a field"):
        EyeResult(eye="OD", disposition=Decision.UNGRADABLE, fields=())
    for fields in [(UNKNOWN,), (CLEAR, UNKNOWN), (CLEAR, SICK), (SICK, UNKNOWN)]:
        with pytest.raises(ValueError, match="contradicts the fields"):
            EyeResult(eye="OD", disposition=Decision.NO_REFER, fields=fields)
    for fields in [(SICK,), (SICK, UNKNOWN), (SICK, CLEAR)]:
        with pytest.raises(ValueError, match="contradicts the fields"):
            EyeResult(eye="OD", disposition=Decision.UNGRADABLE, fields=fields)


def test_an_eye_says_why_it_is_ungradable_once_and_nothing_when_it_is_decided() -> None:
    dark = dataclasses.replace(BAD, reasons=("blur", "dark"))
    other = dataclasses.replace(UNKNOWN, quality=dark, image_sha256="3" * 64)
    assert eye(UNKNOWN, other).reasons == ("blur", "dark")
    assert eye(SICK, UNKNOWN).reasons == ()


def test_no_refer_cannot_rest_on_a_file_that_lies_under_two_fields() -> None:
    with pytest.raises(ValueError, match="under two fields"):
        result(Decision.NO_REFER, eye(CLEAR, CLEAR))
    with pytest.raises(ValueError, match="under two fields"):
        result(Decision.NO_REFER, eye(CLEAR), eye(CLEAR, name="OS"))
    with pytest.raises(ValueError, match="under two fields"):
        result(Decision.REFER, eye(SICK), eye(CLEAR, CLEAR, name="OS"))
    assert result(Decision.REFER, eye(SICK), eye(SICK, name="OS")).decided


def test_no_refer_cannot_rest_on_one_picture_in_two_files() -> None:
    other = dataclasses.replace(CLEAR, image_sha256="4" * 64)
    with pytest.raises(ValueError, match="under two fields"):
        result(Decision.NO_REFER, eye(CLEAR, other))
    with pytest.raises(ValueError, match="under two fields"):
        result(Decision.NO_REFER, eye(CLEAR), eye(other, name="OS"))
    apart = dataclasses.replace(other, input_sha256="c" * 64)
    assert result(Decision.NO_REFER, eye(CLEAR), eye(apart, name="OS")).decided


def test_no_refer_beside_another_file_must_say_which_input_it_was() -> None:
    unsaid = dataclasses.replace(CLEAR, input_sha256=None)
    assert result(Decision.NO_REFER, eye(unsaid)).decided
    for other in (UNKNOWN, SICK):
        with pytest.raises(ValueError, match="hash of the model's input"):
            result(other.disposition, eye(unsaid), eye(other, name="OS"))
    with pytest.raises(ValueError, match="without the file"):
        field(image_sha256=None, disposition=Decision.UNGRADABLE, quality=BAD)


def test_json_is_one_strict_line_with_the_documented_keys() -> None:
    text = result(Decision.UNGRADABLE, eye(CLEAR), eye(UNKNOWN, name="OS")).to_json()
    assert "\n" not in text
    assert "NaN" not in text
    value = json.loads(text)
    assert list(value) == [
        "schema_version",
        "examination_id",
        "disposition",
        "eyes",
        "bundle",
        "engine",
        "warnings",
        "notice",
    ]
    assert value["schema_version"] == 3
    assert value["notice"] == NOTICE
    assert value["bundle"] == {"name": "tiny", "version": "1", "sha256": "a" * 64, "key_id": "k"}
    left = value["eyes"][1]
    assert list(left) == ["eye", "disposition", "reasons", "fields"]
    assert (left["eye"], left["disposition"], left["reasons"]) == ("OS", "ungradable", ["blur"])
    (first,), (second,) = (one["fields"] for one in value["eyes"])
    assert list(first) == [
        "image_sha256",
        "input_sha256",
        "disposition",
        "quality",
        "labels",
        "evidence",
        "timings_ms",
        "error",
    ]
    assert first["timings_ms"] == {"total": 1.235}
    assert first["quality"]["measures"] == {"luma": 90.123457}
    assert second["quality"]["measures"] == {"luma": None}
    assert second["disposition"] == "ungradable"


def test_evidence_json_holds_low_resolution_maps_and_no_picture() -> None:
    evidence = Evidence(
        label_names=("a", "b"),
        maps_lhw=np.arange(12, dtype=np.float32).reshape(2, 2, 3),
        image_hwc=np.zeros((8, 8, 3), np.uint8),
        field_of_view_px=(10.0, 11.0, 9.0),
    )
    value = evidence.to_dict()
    assert value["caption"] == EVIDENCE_CAPTION
    assert value["maps"][1] == {"label": "b", "map_hw": [[6.0, 7.0, 8.0], [9.0, 10.0, 11.0]]}
    assert value["field_of_view_px"] == {"cx": 10.0, "cy": 11.0, "radius": 9.0}
    assert set(value) == {"caption", "field_of_view_px", "maps"}


def _whole() -> ScreeningResult:
    """A result with every kind of content: evidence, a band, an error, a second field."""
    evidence = Evidence(
        label_names=("amd",),
        maps_lhw=np.linspace(-3e4, 3e4, 6, dtype=np.float32).reshape(1, 2, 3),
        image_hwc=np.zeros((8, 8, 3), np.uint8),
        field_of_view_px=(10.5, 11.0, 9.25),
    )
    doubtful = LabelResult(name="glaucoma", probability=0.3, threshold=0.5, doubtful_from=0.2)
    seen = dataclasses.replace(SICK, labels=(POSITIVE, doubtful), evidence=evidence)
    failed = dataclasses.replace(UNKNOWN, image_sha256=None, error="no image was given")
    return result(Decision.REFER, eye(seen, UNKNOWN), eye(failed, name="OS"))


def test_a_result_is_read_back_whole() -> None:
    whole = _whole()
    again = ScreeningResult.from_json(whole.to_json())
    assert again.to_dict() == whole.to_dict()
    assert again.eyes[0].fields[0].labels == whole.eyes[0].fields[0].labels
    assert math.isnan(again.eyes[1].fields[0].quality.measures["luma"])
    evidence = again.eyes[0].fields[0].evidence
    assert evidence is not None
    assert evidence.image_hwc is None
    assert ScreeningResult.from_dict(again.to_dict()).to_json() == whole.to_json()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(found for key, one in inner for found in _paths(one, (*path, key)))]


def _edit(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    edited = json.loads(json.dumps(value))
    parent = edited
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return edited


def _delete(parent: Any, key: Any) -> None:
    del parent[key]


def _replace(new: object) -> Callable[[Any, Any], None]:
    def change(parent: Any, key: Any) -> None:
        parent[key] = new

    return change


# Free content: other entries are another result and not a broken one.
_OPEN = {"measures", "timings_ms", "details", "warnings", "maps"}
_TEXTS = {"name", "version", "sha256", "key_id", "precision", "int8_gate", "error", "eye",
          "examination_id", "image_sha256", "input_sha256"}  # fmt: skip


def test_a_result_with_anything_missing_or_of_another_type_is_refused() -> None:
    value = _whole().to_dict()
    places = [path for path in _paths(value) if path and not _OPEN & set(path)]
    assert len(places) > 60
    for path in places:
        if isinstance(path[-1], str):
            with pytest.raises(DataError):
                ScreeningResult.from_dict(_edit(value, path, _delete))
        for wrong in (["x"], {"x": 1}, "x", True):
            edited = _edit(value, path, _replace(wrong))
            is_free_text = (wrong == "x" and path[-1] in _TEXTS) or (
                "reasons" in path and wrong in (["x"], "x")
            )
            if edited != value and not is_free_text:
                with pytest.raises(DataError):
                    ScreeningResult.from_dict(edited)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("warnings",), ["x", 1]),
        (("warnings",), "x"),
        (("engine", "details"), {"x": 1}),
        (("engine", "details"), ["x"]),
        (("eyes", 0, "fields", 0, "quality", "measures"), {"x": "1"}),
        (("eyes", 0, "fields", 0, "timings_ms"), {"x": None}),
        (("eyes", 0, "fields", 0, "timings_ms"), {"x": 1.23456}),
        (("eyes", 0, "fields", 0, "evidence", "maps"), []),
        (("eyes", 0, "fields", 0, "evidence", "maps", 0, "label"), 1),
        (("eyes", 0, "fields", 0, "evidence", "maps", 0, "map_hw"), [[1.0, 2.0], [3.0]]),
        (("eyes", 0, "fields", 0, "evidence", "maps", 0, "map_hw"), [["a", "b"]]),
    ],
)
def test_open_content_of_another_type_is_refused(path: tuple[Any, ...], wrong: object) -> None:
    with pytest.raises(DataError):
        ScreeningResult.from_dict(_edit(_whole().to_dict(), path, _replace(wrong)))


def test_a_result_with_an_unknown_key_is_refused() -> None:
    value = _whole().to_dict()
    for path in _paths(value):
        inner = value
        for key in path:
            inner = inner[key]
        if isinstance(inner, dict) and path[-1:] not in (("measures",), ("timings_ms",)):
            added = "surprise" if path[-1:] != ("details",) else 5
            with pytest.raises(DataError):
                ScreeningResult.from_dict(_edit(value, (*path, "x"), _replace(added)))


def test_a_printed_or_recorded_line_is_refused_with_the_keys_to_remove() -> None:
    value = _whole().to_dict()
    line = {"input_index": 3, "record": {"key": None}, **value}
    with pytest.raises(DataError, match="'input_index', 'record'; remove them first"):
        ScreeningResult.from_json(json.dumps(line))
    del line["input_index"], line["record"]
    assert ScreeningResult.from_json(json.dumps(line)).to_dict() == value


@pytest.mark.parametrize("version", [2, 4, "3", 3.0, True, None])
def test_another_schema_version_is_refused(version: object) -> None:
    value = {**_whole().to_dict(), "schema_version": version}
    with pytest.raises(DataError, match="schema_version"):
        ScreeningResult.from_dict(value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"schema_version":NaN}', "[" * 100_000])
def test_text_that_is_no_result_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        ScreeningResult.from_json(text)


def test_a_key_given_twice_is_refused() -> None:
    text = _whole().to_json()
    other = '{"disposition":"no_refer",' + text[1:]
    assert json.loads(other) == json.loads(text)
    with pytest.raises(DataError, match="more than once"):
        ScreeningResult.from_json(other)


@pytest.mark.parametrize("depth", [600, 900, 980])
def test_depth_without_end_is_refused(depth: int) -> None:
    nested: object = []
    for _ in range(depth):
        nested = [nested]
    with pytest.raises(DataError):
        ScreeningResult.from_dict({**_whole().to_dict(), "warnings": [nested]})


def test_no_edit_of_a_stored_result_makes_it_clear() -> None:
    value = _whole().to_dict()
    for disposition in ("no_refer", "ungradable", "clear"):
        with pytest.raises(DataError):
            ScreeningResult.from_dict({**value, "disposition": disposition})
    path = ("eyes", 0, "fields", 0, "labels", 0, "probability")
    with pytest.raises(DataError):
        ScreeningResult.from_dict(_edit(value, path, _replace(0.1)))


@pytest.mark.parametrize(
    "kind", [LabelResult, EyeQuality, Evidence, FieldResult, EyeResult, ScreeningResult,
             BundleIdentity, EngineIdentity]
)  # fmt: skip
def test_every_part_of_a_result_is_frozen(kind: type) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    with pytest.raises(dataclasses.FrozenInstanceError):
        CLEAR.disposition = Decision.REFER  # type: ignore[misc]


def test_public_names_resolve_and_are_sorted() -> None:
    names = edge_runtime.__all__
    assert names == sorted(names)
    assert all(getattr(edge_runtime, name) is not None for name in names)
    assert set(names) <= set(dir(edge_runtime))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        edge_runtime.nothing  # noqa: B018


def test_importing_the_package_and_its_command_loads_nothing_heavy() -> None:
    code = (
        "import sys, edge_runtime, edge_runtime.cli\n"
        "heavy = {'numpy', 'cv2', 'onnxruntime', 'onnx', 'torch', 'cryptography'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("probability", "threshold", "shown"),
    [
        (0.5, 0.25, ("0.500", "0.250")),
        (0.99991, 0.99996, ("0.9999", "1.0000")),
        (0.5, 0.5, ("0.500000000", "0.500000000")),
    ],
)
def test_a_probability_beside_its_threshold_can_be_told_from_it(probability, threshold, shown):
    assert told_apart(probability, threshold) == shown
