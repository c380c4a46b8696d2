"""Find one picture under two examinations of a run: one patient's eye would answer for another's.

Which of the two it belongs to, nobody here knows. The first answer may have been told already; the
later one is never 'no refer' by such a picture, both are named to the operator, and the reports,
written at the end, mark both. A picture is known again as within an examination: by its file, or by
the model's input where that was hashed.
"""

from __future__ import annotations

from dataclasses import replace

from edge_runtime.decision import eye_disposition, patient_disposition
from edge_runtime.eye_joining import take_back
from edge_runtime.result import Decision, EyeResult, FieldResult, ScreeningResult

__all__ = ["SAME_PICTURE", "PicturesSeen"]

SAME_PICTURE = "same image given for two examinations"


class PicturesSeen:
    """The pictures of the examinations of one run, in the order of its plan.

    Examinations without an id are single pictures of a folder: there a copy is only a copy.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._first: dict[str, int] = {}

    def check(
        self, input_index: int, result: ScreeningResult
    ) -> tuple[ScreeningResult, tuple[int, ...]]:
        """Hold one answer against those before it, and remember its pictures.

        Args:
            input_index: Of the examination; each is checked once, in order.
            result: Its answer.

        Returns:
            The answer, without a 'no refer' by a picture of an earlier examination and with a
            warning, and the input_index of each such examination.
        """
        if result.examination_id is None:
            return result, ()
        fields = [one for eye in result.eyes for one in eye.fields]
        shared = sorted({self._first[key] for one in fields for key in self._known(one)})
        if shared:
            eyes = tuple(self._without_shared(eye) for eye in result.eyes)
            result = replace(
                result,
                eyes=eyes,
                disposition=patient_disposition(eye.disposition for eye in eyes),
                warnings=(*result.warnings, SAME_PICTURE),
            )
        for key in (key for one in fields for key in _keys(one)):
            self._first.setdefault(key, input_index)
        return result, tuple(shared)

    def _known(self, field: FieldResult) -> list[str]:
        return [key for key in _keys(field) if key in self._first]

    def _without_shared(self, eye: EyeResult) -> EyeResult:
        fields = tuple(
            take_back(one, SAME_PICTURE)
            if one.disposition is Decision.NO_REFER and self._known(one)
            else one
            for one in eye.fields
        )
        found = eye_disposition([one.disposition for one in fields], fields_per_eye=len(fields))
        return replace(eye, fields=fields, disposition=found)


def _keys(field: FieldResult) -> list[str]:
    """The hashes by which a picture is known again; of files and of inputs none are equal."""
    return [one for one in (field.image_sha256, field.input_sha256) if one is not None]
