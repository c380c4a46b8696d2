"""The one vocabulary that every imported set is mapped to; an absent label is unknown.

Names that training already uses (train.labels, train.tasks.registry) are kept. What a label
may hold follows from its name, as in every data set (train.data.index).
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_runtime.errors import DataError

__all__ = ["BESIDE", "LABELS", "dr_labels", "ordered_labels", "quality_labels"]

LABELS: Mapping[str, str] = {
    "gradable": "1 the picture can be judged, 0 it cannot",
    "quality_grade": "0 good, 1 usable, 2 reject (EyeQ's three words)",
    "dr_grade": "diabetic retinopathy, ICDR scale 0 to 4",
    "referable_dr": "1 where dr_grade is 2 or more",
    "diabetic_retinopathy": "any diabetic retinopathy: 1 where dr_grade is 1 or more",
    "macular_edema": "diabetic or cystoid macular edema",
    "dme_risk_grade": "IDRiD's risk of macular edema, 0 to 2",
    "glaucoma": "glaucoma, suspected included",
    "glaucoma_grade": "GAMMA: 0 none, 1 early, 2 intermediate or advanced",
    "amd": "age-related macular degeneration",
    "pathological_myopia": "myopia that changed the fundus",
    "cataract": "cataract",
    "hypertensive": "hypertensive retinopathy",
    "other": "another finding",
    "normal": "no finding",
    "age_value": "years",
    "sex_female": "1 female, 0 male",
    "fovea_x_value": "column of the fovea, pixels of the file",
    "fovea_y_value": "row of the fovea, pixels of the file",
}
# Masks that the contract has no column for: written beside the index, named in import.json.
BESIDE = ("fov", "vessels_second_observer")

_QUALITY = ("good", "usable", "reject")
_REFERABLE_FROM = 2


def dr_labels(grade: int | None) -> dict[str, float]:
    """The three DR labels that follow from an ICDR grade; empty where it is unknown."""
    if grade is None:
        return {}
    return {
        "dr_grade": float(grade),
        "referable_dr": float(grade >= _REFERABLE_FROM),
        "diabetic_retinopathy": float(grade >= 1),
    }


def quality_labels(grade: int | None) -> dict[str, float]:
    """Quality 0 good, 1 usable, 2 reject, and what follows: a rejected picture is ungradable."""
    if grade is None:
        return {}
    reject = _QUALITY.index("reject")
    return {"quality_grade": float(grade), "gradable": float(grade != reject)}


def ordered_labels(names: set[str]) -> tuple[str, ...]:
    """Names in the order of the vocabulary.

    Raises:
        DataError: a name is not in it.
    """
    strangers = sorted(names - set(LABELS))
    if strangers:
        raise DataError(f"label '{strangers[0]}' is not in the vocabulary; add it there first")
    return tuple(name for name in LABELS if name in names)
