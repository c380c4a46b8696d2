"""From the fields of every eye to the eyes: rules 3 and 4 of `edge_runtime.decision`, with reasons.

Pure: the same fields give the same eyes. A reason is added wherever a 'no refer' is taken back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edge_runtime.decision import eye_disposition, rests_on_shared_picture
from edge_runtime.fundus.laterality import SAME_SIDE, look_alike
from edge_runtime.result import Decision, EyeResult, FieldResult

__all__ = ["SAME_FIELD", "SAME_IMAGE", "join_eyes", "pair_warnings", "take_back"]

SAME_IMAGE = "same image given for two eyes"
SAME_FIELD = "same image given for two fields of an eye"


def join_eyes(
    fields: Mapping[str, Sequence[FieldResult]], *, fields_per_eye: int
) -> tuple[EyeResult, ...]:
    """Return one result an eye, in the order given.

    Args:
        fields: What was found in every picture, by eye.
        fields_per_eye: How many pictures of an eye the protocol asks for.
    """
    flat = [(eye, one) for eye, found in fields.items() for one in found]
    shared = rests_on_shared_picture(
        [(one.disposition, one.image_sha256, one.input_sha256) for _, one in flat]
    )
    cleared = [
        (eye, take_back(one, _reason(eye, one, fields)) if is_shared else one)
        for (eye, one), is_shared in zip(flat, shared, strict=True)
    ]
    return tuple(
        _eye(name, [one for eye, one in cleared if eye == name], fields_per_eye) for name in fields
    )


def pair_warnings(fields: Mapping[str, Sequence[FieldResult]]) -> list[str]:
    """Say that a picture was given twice, also where nothing had to be taken back.

    Of different pictures: that the two eyes clearly show the optic disc on the same side.
    """
    shared = _shared_image_warnings(fields)
    if shared:
        return shared
    sides = {eye: _disc_side(found) for eye, found in fields.items()}
    return [SAME_SIDE] if look_alike(sides) else []


def _disc_side(fields: Sequence[FieldResult]) -> float | None:
    """The clearest of an eye's pictures; one that is centred on the disc says nothing."""
    sides = [one.quality.measures.get("disc_side") for one in fields]
    return max((side for side in sides if side is not None), key=abs, default=None)


def _shared_image_warnings(fields: Mapping[str, Sequence[FieldResult]]) -> list[str]:
    pairs = {
        _reason(eye, one, fields)
        for eye, found in fields.items()
        for one in found
        if _count(one, [other for others in fields.values() for other in others]) > 1
    }
    return sorted(pairs)


def _eye(name: str, fields: Sequence[FieldResult], fields_per_eye: int) -> EyeResult:
    disposition = eye_disposition(
        [one.disposition for one in fields], fields_per_eye=fields_per_eye
    )
    return EyeResult(eye=name, disposition=disposition, fields=tuple(fields))


def _reason(eye: str, field: FieldResult, fields: Mapping[str, Sequence[FieldResult]]) -> str:
    """Name who shares the picture: another eye comes first, because it is the graver mistake."""
    others = [one for name, found in fields.items() if name != eye for one in found]
    return SAME_IMAGE if _count(field, others) else SAME_FIELD


def _count(field: FieldResult, among: Sequence[FieldResult]) -> int:
    return sum(field.is_same_picture(one) for one in among)


def take_back(field: FieldResult, reason: str) -> FieldResult:
    """Return the field as ungradable for this one reason; its labels stay, as information."""
    quality = replace(field.quality, gradable=False, reasons=(reason,))
    return replace(field, disposition=Decision.UNGRADABLE, quality=quality)
