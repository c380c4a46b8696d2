"""From logit to probability to decision: pure functions, the only place where eyes are judged.

The rules, in order:

1. A field (one picture of an eye) is ungradable unless its image passed the quality gate AND the
   model's P(gradable) reaches its threshold AND at least one label was computed. A positive label
   does not change that: probabilities of an image that cannot be judged mean nothing, so the field
   says 'ungradable' (which asks for a new picture or a referral) and not 'refer'.
2. A gradable field refers when any label is positive (probability >= threshold). Otherwise it is
   ungradable when any label is doubtful (in the abstention band below the threshold, if the bundle
   has one), else 'no refer'.
3. A picture that lies under two fields of an examination clears neither: an eye, or a part of one,
   was never photographed, and which one nobody knows. One file is one picture; so are two files of
   which the model's input comes out the same, such as a JPEG and a DICOM file around it, because no
   two photographs are. A 'no refer' that rests on such a picture is ungradable; a 'refer' stands,
   because it is the safe answer for either.
4. An eye refers when any of its fields refers. It is 'no refer' only when at least as many fields
   were given as the protocol asks for and every field given is 'no refer'. Otherwise it is
   ungradable. Pictures beyond the protocol are fields like the others: each can refer, each must
   be clear. That never clears an eye which the protocol's own pictures would not clear, whereas
   to refuse the examination would leave a patient without an answer; what it costs is
   specificity, because operating points are set on single pictures.
5. An examination refers when any eye refers; otherwise it is ungradable when any eye is, or when
   there is none; only an examination whose every eye is 'no refer' is 'no refer'.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from edge_runtime.errors import EngineError
from edge_runtime.result import Decision, LabelResult

__all__ = [
    "Decision",
    "decide_label",
    "eye_disposition",
    "field_disposition",
    "patient_disposition",
    "probability",
    "rests_on_shared_picture",
    "sigmoid",
]


def sigmoid(logit: float) -> float:
    """Return 1 / (1 + exp(-logit)) without overflow for any finite logit."""
    if logit >= 0.0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)


def probability(logit: float, temperature: float) -> float:
    """Return the calibrated probability sigmoid(logit / temperature) (Guo et al. 2017).

    Args:
        logit: Output of the model.
        temperature: Positive number from the probability calibration of the bundle.

    Raises:
        EngineError: If the logit is not finite: the model's output cannot be used.
        ValueError: If the temperature is not a positive finite number.
    """
    if not (math.isfinite(temperature) and temperature > 0.0):
        raise ValueError(f"temperature is {temperature!r}, not a positive finite number")
    if not math.isfinite(logit):
        raise EngineError(
            f"the model returned a logit of {logit!r}; the result is not used. "
            "Run `edge-screen verify` on the bundle"
        )
    return sigmoid(logit / temperature)


def decide_label(
    name: str,
    logit: float,
    *,
    temperature: float,
    threshold: float,
    doubtful_from: float | None = None,
) -> LabelResult:
    """Return the label's probability beside the threshold, and the band, that decide it."""
    return LabelResult(
        name=name,
        probability=probability(logit, temperature),
        threshold=threshold,
        doubtful_from=doubtful_from,
    )


def field_disposition(
    *,
    quality_passed: bool,
    gradable_probability: float | None,
    gradable_threshold: float,
    labels_positive: Sequence[bool],
    labels_doubtful: Sequence[bool] = (),
) -> Decision:
    """Judge one picture of an eye (rules 1 and 2 of the module).

    Args:
        quality_passed: Whether the image was read and passed the quality gate.
        gradable_probability: P(gradable) of the model; None when the model was not run.
        gradable_threshold: Smallest P(gradable) that is accepted.
        labels_positive: One entry a label; empty when the model was not run.
        labels_doubtful: Whether each label lies in its abstention band; empty without bands.
    """
    # Written so that NaN on either side of the comparison ends in 'ungradable'.
    gradable = gradable_probability is not None and gradable_probability >= gradable_threshold
    if not (quality_passed and gradable and len(labels_positive) > 0):
        return Decision.UNGRADABLE
    if any(labels_positive):
        return Decision.REFER
    return Decision.UNGRADABLE if any(labels_doubtful) else Decision.NO_REFER


def rests_on_shared_picture(
    fields: Sequence[tuple[Decision, str | None, str | None]],
) -> list[bool]:
    """Say which fields of one examination lose their 'no refer' to rule 3.

    Args:
        fields: Of every field of every eye its disposition, the SHA-256 of the file and that of the
            model's input; None for what there was not, which is shared with nothing.
    """
    files = Counter(image_sha256 for _, image_sha256, _ in fields)
    inputs = Counter(input_sha256 for _, _, input_sha256 in fields)
    files[None] = inputs[None] = 0
    return [
        disposition is Decision.NO_REFER and (files[image_sha256] > 1 or inputs[input_sha256] > 1)
        for disposition, image_sha256, input_sha256 in fields
    ]


def eye_disposition(fields: Sequence[Decision], *, fields_per_eye: int) -> Decision:
    """Judge one eye by its fields (rule 4 of the module).

    Args:
        fields: One entry a picture given, after rule 3.
        fields_per_eye: How many the protocol asks for, at least 1.
    """
    if Decision.REFER in fields:
        return Decision.REFER
    complete = len(fields) >= max(1, fields_per_eye)
    if complete and all(one is Decision.NO_REFER for one in fields):
        return Decision.NO_REFER
    return Decision.UNGRADABLE


def patient_disposition(eyes: Iterable[Decision]) -> Decision:
    """Judge one examination by its worst eye (rule 5 of the module)."""
    dispositions = list(eyes)
    if Decision.REFER in dispositions:
        return Decision.REFER
    if dispositions and all(d is Decision.NO_REFER for d in dispositions):
        return Decision.NO_REFER
    return Decision.UNGRADABLE
