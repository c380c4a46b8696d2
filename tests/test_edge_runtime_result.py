"""The typed answer: strict JSON, and no way to construct an unsafe 'no refer'."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest

import edge_runtime
from edge_runtime.report_text import _told_apart
from edge_runtime.result import (
    EVIDENCE_CAPTION,
    NOTICE,
    BundleIdentity,
    Decision,
    EngineIdentity,
    Evidence,
    EyeQuality,
    EyeResult,
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


def eye(**changes: object) -> EyeResult:
    """A clean 'no refer' eye with changes."""
    values: dict[str, object] = {
        "eye": "OD",
        "image_sha256": "0" * 64,
        "disposition": Decision.NO_REFER,
        "quality": GOOD,
        "labels": (NEGATIVE,),
        "timings_ms": {"total": 1.23456},
    }
    return EyeResult(**{**values, **changes})  # type: ignore[arg-type]


UNGRADABLE = {"disposition": Decision.UNGRADABLE, "quality": BAD, "labels": ()}


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
        eye(labels=(NEGATIVE, doubtful))
    assert eye(disposition=Decision.REFER, labels=(doubtful, POSITIVE)).any_positive


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
        {"image_sha256": None},
        {"quality": BAD},
        {"labels": ()},
        {"labels": (NEGATIVE, POSITIVE)},
    ],
)
def test_no_refer_cannot_be_constructed_for_an_eye_that_was_not_judged(
    changes: dict[str, object],
) -> None:
    assert eye().disposition is Decision.NO_REFER
    with pytest.raises(ValueError, match="no_refer"):
        eye(**changes)


def test_refer_needs_a_positive_label() -> None:
    with pytest.raises(ValueError, match="contradicts"):
        eye(disposition=Decision.REFER)


def test_examination_cannot_be_better_than_its_worst_eye() -> None:
    clear, unknown = eye(), eye(**UNGRADABLE)
    sick = eye(disposition=Decision.REFER, labels=(POSITIVE,))
    for eyes in [(), (unknown,), (clear, unknown), (clear, sick), (sick, unknown)]:
        with pytest.raises(ValueError, match="contradicts"):
            result(Decision.NO_REFER, *eyes)
    for eyes in [(sick,), (sick, unknown), (sick, clear)]:
        with pytest.raises(ValueError, match="contradicts"):
            result(Decision.UNGRADABLE, *eyes)
    assert result(Decision.NO_REFER, clear).decided
    assert not result(Decision.UNGRADABLE, unknown).decided


def test_json_is_one_strict_line_with_the_documented_keys() -> None:
    text = result(Decision.UNGRADABLE, eye(), eye(**UNGRADABLE)).to_json()
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
    assert value["schema_version"] == 2
    assert value["notice"] == NOTICE
    assert value["bundle"] == {"name": "tiny", "version": "1", "sha256": "a" * 64, "key_id": "k"}
    first, second = value["eyes"]
    assert list(first) == [
        "eye",
        "image_sha256",
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
    assert _told_apart(probability, threshold) == shown
