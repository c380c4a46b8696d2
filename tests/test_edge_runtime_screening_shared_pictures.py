"""One picture under two examinations: the later one is never cleared by it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from screen_factory import field_result, screening_result

from edge_runtime.result import Decision, FieldResult, ScreeningResult
from edge_runtime.screening.shared_pictures import SAME_PICTURE, PicturesSeen


def exam(name: str | None, od: FieldResult, os_: FieldResult) -> ScreeningResult:
    """An examination of both eyes."""
    return screening_result({"OD": [od], "OS": [os_]}, examination_id=name)


def clear(seed: int) -> FieldResult:
    """A picture that is 'no refer', by its number."""
    return field_result(seed=seed)


def test_only_what_rests_on_the_shared_picture_is_taken_back() -> None:
    seen = PicturesSeen()
    first = exam("v1", clear(1), clear(2))
    assert seen.check(0, first) == (first, ())
    result, shared = seen.check(1, exam("v2", clear(3), clear(2)))
    assert shared == (0,)
    assert [eye.disposition for eye in result.eyes] == [Decision.NO_REFER, Decision.UNGRADABLE]
    assert result.disposition is Decision.UNGRADABLE
    assert result.eyes[1].reasons == result.warnings == (SAME_PICTURE,)
    third = exam("v3", clear(4), clear(5))
    assert seen.check(2, third) == (third, ())


def test_every_earlier_examination_is_named_also_one_that_was_taken_back() -> None:
    seen = PicturesSeen()
    seen.check(0, exam("v1", clear(1), clear(2)))
    seen.check(1, exam("v2", clear(3), clear(2)))
    assert seen.check(2, exam("v3", clear(3), clear(1)))[1] == (0, 1)


@pytest.mark.parametrize("same", ["image_sha256", "input_sha256"])
def test_a_picture_is_known_by_its_file_and_by_what_the_model_saw(same: str) -> None:
    seen = PicturesSeen()
    seen.check(0, exam("v1", clear(1), clear(2)))
    twin = replace(clear(3), **{same: getattr(clear(1), same)})  # type: ignore[arg-type]
    result, shared = seen.check(1, exam("v2", twin, clear(4)))
    assert (shared, result.disposition) == ((0,), Decision.UNGRADABLE)


def test_a_referral_stands_with_a_warning() -> None:
    seen = PicturesSeen()
    seen.check(0, exam("v1", clear(1), clear(2)))
    result, shared = seen.check(1, exam("v2", field_result(0.9, seed=1), clear(3)))
    assert (shared, result.disposition) == ((0,), Decision.REFER)
    assert result.warnings == (SAME_PICTURE,)


def test_missing_pictures_and_single_pictures_without_an_id_share_nothing() -> None:
    seen = PicturesSeen()
    missing = field_result(reasons=("missing image",))
    for index, name in enumerate(("v1", "v2")):
        assert seen.check(index, exam(name, missing, missing))[1] == ()
    alone = screening_result({"unspecified": [clear(9)]})
    for index in (2, 3):
        assert seen.check(index, alone) == (alone, ())
