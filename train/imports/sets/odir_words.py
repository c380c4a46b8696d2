"""ODIR-5K's diagnostic keywords of one eye as labels; the set's own labels are per patient."""

from __future__ import annotations

import re
from collections.abc import Sequence

from train.imports.vocabulary import dr_labels

__all__ = ["NO_FUNDUS", "eye_labels", "split_keywords"]

# Not a fundus photograph at all.
NO_FUNDUS = ("anterior segment image", "no fundus image")
_LOW_QUALITY = "low image quality"
# About the picture, not the eye.
_ABOUT_THE_PICTURE = ("lens dust", "image offset", "optic disk photographically invisible")
_NORMAL = "normal fundus"
_DISEASES = {
    "glaucoma": "glaucoma",
    "cataract": "cataract",
    "age-related macular degeneration": "amd",
    "hypertensive": "hypertensive",
    "myopi": "pathological_myopia",  # pathological myopia, myopia retinopathy, myopic maculopathy
}
_DR = re.compile(r"proliferative|diabetic retinopathy")
_GRADES = (
    (re.compile(r"\bmild (non ?proliferative|nonproliferative)"), 1),
    (re.compile(r"\bmoderate (non ?proliferative|nonproliferative)"), 2),
    (re.compile(r"\bsevere (non ?proliferative|nonproliferative)"), 3),
    (re.compile(r"(?<!non)(?<!non )proliferative"), 4),
)


def split_keywords(text: str) -> tuple[str, ...]:
    """Keywords of an eye; ODIR separates them by a full-width comma."""
    parts = re.split(r"[,\uff0c;]", text)
    return tuple(" ".join(part.lower().split()) for part in parts if part.strip())


def eye_labels(keywords: Sequence[str]) -> dict[str, float]:
    """Labels of one eye.

    A keyword that is none of the named diseases is 'other'. The list is taken as complete: a
    disease that it does not name is 0. An eye of which only 'low image quality' is said has
    no disease label at all, since nothing was seen.
    """
    labels = {"gradable": 0.0} if _LOW_QUALITY in keywords else {}
    said = [word for word in keywords if word not in (*_ABOUT_THE_PICTURE, _LOW_QUALITY)]
    if not said:
        return labels
    found = {_class(word) for word in said}
    names = ("normal", "diabetic_retinopathy", *_DISEASES.values(), "other")
    labels |= {name: float(name in found) for name in names}
    labels |= dr_labels(0) if "diabetic_retinopathy" not in found else dr_labels(_grade(said))
    return labels


def _class(word: str) -> str:
    if word == _NORMAL:
        return "normal"
    if _DR.search(word):
        return "diabetic_retinopathy"
    return next((name for part, name in _DISEASES.items() if part in word), "other")


def _grade(said: Sequence[str]) -> int | None:
    """The worst grade among the DR keywords; None where one of them names none."""
    grades = [_grade_of(word) for word in said if _DR.search(word)]
    known = [grade for grade in grades if grade is not None]
    return max(known) if len(known) == len(grades) else None


def _grade_of(word: str) -> int | None:
    return next((grade for pattern, grade in _GRADES if pattern.search(word)), None)
