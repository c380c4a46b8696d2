"""Read a result back from its JSON object: whole and consistent, or refused.

What is derived (decisions of labels, reasons of an eye, the notice) is computed again, and the
object that was read must say the same as `to_dict` of what came out of it. So an unknown key, a
missing one and a value that was edited are found without a rule for each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_runtime.errors import DataError
from edge_runtime.result import (
    SCHEMA_VERSION,
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

__all__ = ["parse_result", "read_result"]

_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


def parse_result(text: str) -> ScreeningResult:
    """Return the result that one line of JSON holds.

    Raises:
        DataError: No strict JSON, or as `read_result`.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the result is no JSON ({error}); screen the picture again") from error
    return read_result(value)


def read_result(value: object) -> ScreeningResult:
    """Return the result whose `to_dict` is `value`.

    Raises:
        DataError: Another schema version, an unknown or missing key, or a value that contradicts
            the rules of `edge_runtime.result` or the other values.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"the result is a {type(value).__name__}, not a JSON object")
    version = value.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise DataError(
            f"the result has schema_version {version!r} and this program reads {SCHEMA_VERSION}; "
            "screen the picture again"
        )
    try:
        result = _result(value)
        written = result.to_dict()
        same = written == value
    except _UNREADABLE as error:
        raise DataError(
            f"the result cannot be read ({type(error).__name__}: {error}); screen the picture again"
        ) from error
    _require_known_keys(value, written)
    if not same:
        raise DataError(
            "the result contradicts itself, or an object in it has keys that this program does not "
            "know; screen the picture again"
        )
    return result


def _require_known_keys(value: Mapping[str, Any], written: Mapping[str, Any]) -> None:
    unknown = [repr(key) for key in value if key not in written]
    if unknown:
        raise DataError(
            f"the result has keys that this program does not know: {', '.join(unknown[:4])}; "
            "remove them first ('input_index' is added by `screen --json`, 'record' in a record)"
        )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what says one thing twice: another reader would take the other one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key appears more than once")
    return found


def _result(value: Mapping[str, Any]) -> ScreeningResult:
    return ScreeningResult(
        examination_id=_text(value["examination_id"], optional=True),
        disposition=Decision(value["disposition"]),
        eyes=tuple(_eye(one) for one in value["eyes"]),
        bundle=_bundle(value["bundle"]),
        engine=_engine(value["engine"]),
        warnings=_texts(value["warnings"]),
    )


def _bundle(value: Mapping[str, Any]) -> BundleIdentity:
    return BundleIdentity(
        name=_text(value["name"]),
        version=_text(value["version"]),
        sha256=_text(value["sha256"]),
        key_id=_text(value["key_id"], optional=True),
    )


def _engine(value: Mapping[str, Any]) -> EngineIdentity:
    return EngineIdentity(
        name=_text(value["name"]),
        precision=_text(value["precision"]),
        int8_gate=_text(value["int8_gate"]),
        details={name: _text(text) for name, text in value["details"].items()},
    )


def _eye(value: Mapping[str, Any]) -> EyeResult:
    return EyeResult(
        eye=_text(value["eye"]),
        disposition=Decision(value["disposition"]),
        fields=tuple(_field(one) for one in value["fields"]),
    )


def _field(value: Mapping[str, Any]) -> FieldResult:
    evidence = value["evidence"]
    return FieldResult(
        image_sha256=_text(value["image_sha256"], optional=True),
        input_sha256=_text(value["input_sha256"], optional=True),
        disposition=Decision(value["disposition"]),
        quality=_quality(value["quality"]),
        labels=tuple(_label(one) for one in value["labels"]),
        evidence=None if evidence is None else _evidence(evidence),
        timings_ms={name: _number(ms) for name, ms in value["timings_ms"].items()},
        error=_text(value["error"], optional=True),
    )


def _quality(value: Mapping[str, Any]) -> EyeQuality:
    p_gradable = value["gradable_probability"]
    measures = {k: math.nan if v is None else _number(v) for k, v in value["measures"].items()}
    return EyeQuality(
        gradable=value["gradable"] is True,
        gradable_probability=None if p_gradable is None else _number(p_gradable),
        gradable_threshold=_number(value["gradable_threshold"]),
        reasons=_texts(value["reasons"]),
        measures=measures,
    )


def _label(value: Mapping[str, Any]) -> LabelResult:
    low = value["doubtful_from"]
    return LabelResult(
        name=_text(value["name"]),
        probability=_number(value["probability"]),
        threshold=_number(value["threshold"]),
        doubtful_from=None if low is None else _number(low),
    )


def _evidence(value: Mapping[str, Any]) -> Evidence:
    circle = value["field_of_view_px"]
    maps_lhw = np.array([one["map_hw"] for one in value["maps"]], np.float64)
    if maps_lhw.ndim != 3 or not np.isfinite(maps_lhw).all():
        raise ValueError("the evidence maps are not numbers in rows of one length")
    return Evidence(
        label_names=tuple(_text(one["label"]) for one in value["maps"]),
        maps_lhw=maps_lhw,
        image_hwc=None,
        field_of_view_px=(
            _number(circle["cx"]),
            _number(circle["cy"]),
            _number(circle["radius"]),
        ),
    )


def _text(value: Any, *, optional: bool = False) -> Any:
    if not (isinstance(value, str) or (optional and value is None)):
        raise TypeError(f"{value!r} is no text")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError(f"{values!r} is no list")
    return tuple(_text(value) for value in values)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no finite number")
    return float(value)
