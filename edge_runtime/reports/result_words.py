"""How a probability is told to a person: beside its threshold, and whether it counted."""

from __future__ import annotations

from edge_runtime.eye_pipeline import DOUBTFUL
from edge_runtime.result import Decision, FieldResult, LabelResult

__all__ = ["EYE_WORDS", "NOT_USED", "POSITIVE", "label_word", "printable", "told_apart"]

POSITIVE = "positive"
NOT_USED = "not used"
EYE_WORDS = {"OD": "Right eye (OD)", "OS": "Left eye (OS)", "unspecified": "Eye"}


def label_word(one: FieldResult, label: LabelResult) -> str:
    """Return 'positive', 'doubtful', 'negative', or 'not used'.

    A probability of a picture that cannot be judged means nothing; it is shown, and not used.
    """
    judged = one.disposition is not Decision.UNGRADABLE or DOUBTFUL in one.quality.reasons
    return label.decision if judged else NOT_USED


def told_apart(probability: float, threshold: float) -> tuple[str, str]:
    """Both with three digits, or with as many as show which one is larger."""
    for digits in range(3, 10):
        texts = f"{probability:.{digits}f}", f"{threshold:.{digits}f}"
        if texts[0] != texts[1]:
            break
    return texts


def printable(text: str) -> str:
    """Return the text with control characters replaced, so that no name can move a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
