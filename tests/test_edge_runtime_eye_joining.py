"""From fields to eyes to an examination: every combination beside a slow, separate reference."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import pytest

from edge_runtime.decision import eye_disposition, patient_disposition, rests_on_shared_picture
from edge_runtime.eye_joining import SAME_FIELD, SAME_IMAGE, join_eyes, pair_warnings
from edge_runtime.result import (
    BundleIdentity,
    Decision,
    EngineIdentity,
    EyeQuality,
    FieldResult,
    LabelResult,
    ScreeningResult,
)

# What can become of one field. A missing one has no file, so it shares none.
NOT_SEEN = ("missing", "refused")
STATES = ("missing", "refused", "low gradability", "doubtful", "negative", "positive")
# By eye, of each field: its state, its file, and the picture in it (None: that of the file).
States = Mapping[str, Sequence[tuple[str, str | None, str | None]]]


@lru_cache(maxsize=256)
def field(state: str, sha256: str | None, picture: str | None = None) -> FieldResult:
    """A field in one of the states."""
    was_run = state not in ("missing", "refused")
    p_label = {"doubtful": 0.4, "negative": 0.1}.get(state, 0.9)
    label = LabelResult(name="amd", probability=p_label, threshold=0.5, doubtful_from=0.3)
    disposition = {"positive": Decision.REFER, "negative": Decision.NO_REFER}.get(
        state, Decision.UNGRADABLE
    )
    is_decided = disposition is not Decision.UNGRADABLE
    return FieldResult(
        image_sha256=sha256,
        input_sha256=(picture or sha256) if was_run else None,
        disposition=disposition,
        quality=EyeQuality(
            gradable=is_decided,
            gradable_probability=(0.1 if state == "low gradability" else 0.9) if was_run else None,
            gradable_threshold=0.5,
            reasons=() if is_decided else (state,),
            measures={},
        ),
        labels=(label,) if was_run else (),
        timings_ms={},
        error=None if was_run else state,
    )


def examine(states: States, *, fields_per_eye: int) -> ScreeningResult:
    """What the screener makes of fields in these states."""
    fields = {
        eye: [
            field(*one)
            for one in (*given, *[("missing", None, None)] * (fields_per_eye - len(given)))
        ]
        for eye, given in states.items()
    }
    eyes = join_eyes(fields, fields_per_eye=fields_per_eye)
    return ScreeningResult(
        examination_id=None,
        disposition=patient_disposition(eye.disposition for eye in eyes),
        eyes=eyes,
        bundle=BundleIdentity(name="b", version="1", sha256="0" * 64, key_id=None),
        engine=EngineIdentity(name="onnxruntime", precision="int8", int8_gate="passed"),
    )


def reference(states: States, *, fields_per_eye: int) -> tuple[str, dict[str, str]]:
    """Written from docs/vendor.md, in words and without any code of the package."""
    fields = [one for given in states.values() for one in given]
    files = [file for _, file, _ in fields]
    seen_by_model = [picture for state, _, picture in fields if state not in NOT_SEEN]
    words = {}
    for eye, given in states.items():
        is_clear = len(given) >= fields_per_eye
        has_finding = False
        for state, file, picture in given:
            if state == "positive":
                has_finding = True
            elif state != "negative" or files.count(file) + seen_by_model.count(picture) != 2:
                is_clear = False
        words[eye] = "refer" if has_finding else "no_refer" if is_clear else "ungradable"
    for word in ("refer", "ungradable", "no_refer"):
        if word in words.values():
            return word, words
    raise AssertionError("an examination without eyes")


def sharings(num: int) -> Iterator[tuple[int, ...]]:
    """Every way in which `num` pictures can be the same files, as the number of each file."""

    def grow(start: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(start) == num:
            yield start
            return
        for file in range(max(start, default=-1) + 2):
            yield from grow((*start, file))

    return grow(())


def files_and_pictures(num: int) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Every way in which files can be the same and pictures can: one file is one picture."""
    for files, pictures in itertools.product(sharings(num), repeat=2):
        if len(set(zip(files, pictures, strict=True))) == len(set(files)):
            yield (
                tuple(f"{one:064x}" for one in files),
                tuple(f"{one + 100:064x}" for one in pictures),
            )


def examinations(*, num_fields: Sequence[int]) -> Iterator[States]:
    """Every state of every field and every sharing, for eyes with so many fields."""
    total = sum(num_fields)
    for states in itertools.product(STATES, repeat=total):
        for files, pictures in files_and_pictures(total):
            named = iter(
                ("missing", None, None) if state == "missing" else (state, file, picture)
                for state, file, picture in zip(states, files, pictures, strict=True)
            )
            yield {
                eye: tuple(itertools.islice(named, count))
                for eye, count in zip(("OD", "OS"), num_fields, strict=False)
            }


def compare_all(num_fields: Sequence[int], fields_per_eye: int) -> int:
    """Compare every examination with the reference; return how many were compared."""
    num = 0
    for states in examinations(num_fields=num_fields):
        result = examine(states, fields_per_eye=fields_per_eye)
        expected = reference(states, fields_per_eye=fields_per_eye)
        found = {eye.eye: eye.disposition.value for eye in result.eyes}
        assert (result.disposition.value, found) == expected, states
        num += 1
    return num


def test_there_are_fifteen_ways_to_share_four_files() -> None:
    assert [len(list(sharings(num))) for num in range(5)] == [1, 1, 2, 5, 15]  # Bell numbers


@pytest.mark.parametrize("fields_per_eye", [1, 2])
@pytest.mark.parametrize(
    ("num_fields", "num"),
    [
        ((1,), 6),
        ((2,), 6**2 * 3),
        ((1, 1), 6**2 * 3),
        ((1, 2), 6**3 * 12),
        ((2, 1), 6**3 * 12),
    ],
)
def test_every_combination_of_up_to_three_fields(
    num_fields: Sequence[int], num: int, fields_per_eye: int
) -> None:
    assert compare_all(num_fields, fields_per_eye) == num


@pytest.mark.slow
@pytest.mark.parametrize("fields_per_eye", [1, 2])
def test_every_combination_of_two_fields_of_both_eyes(fields_per_eye: int) -> None:
    assert compare_all((2, 2), fields_per_eye) == 6**4 * 60


@pytest.mark.parametrize("fields_per_eye", [0, 1, 2, 3])
def test_eye_disposition_over_every_combination_of_up_to_four_fields(fields_per_eye: int) -> None:
    for num in range(5):
        for fields in itertools.product(Decision, repeat=num):
            found = eye_disposition(fields, fields_per_eye=fields_per_eye)
            if Decision.REFER in fields:
                assert found is Decision.REFER
            elif num == 0 or num < fields_per_eye or Decision.UNGRADABLE in fields:
                assert found is Decision.UNGRADABLE
            else:
                assert found is Decision.NO_REFER
            assert found is eye_disposition(fields[::-1], fields_per_eye=fields_per_eye)


def test_a_further_picture_never_clears_an_eye() -> None:
    for fields in itertools.product(Decision, repeat=2):
        if eye_disposition(fields, fields_per_eye=1) is Decision.NO_REFER:
            assert eye_disposition(fields[:1], fields_per_eye=1) is Decision.NO_REFER
        if eye_disposition(fields[:1], fields_per_eye=1) is Decision.REFER:
            assert eye_disposition(fields, fields_per_eye=1) is Decision.REFER


def test_only_no_refer_is_taken_back_and_a_file_that_was_not_read_is_shared_with_nothing() -> None:
    for first, second in itertools.product(Decision, repeat=2):
        both = [first is Decision.NO_REFER, second is Decision.NO_REFER]
        for one, other in [("aA", "aA"), ("aA", "bA"), ("aA", "aB")]:
            pair = [(first, *one), (second, *other)]
            assert rests_on_shared_picture(pair) == both
        assert rests_on_shared_picture([(first, "a", "A"), (second, "b", "B")]) == [False] * 2
        assert rests_on_shared_picture([(first, "a", None), (second, "b", None)]) == [False] * 2
        assert rests_on_shared_picture([(first, None, None), (second, None, None)]) == [False] * 2


def test_the_reason_says_whether_the_file_lies_under_another_eye_or_another_field() -> None:
    a, b, c = "a" * 64, "b" * 64, "c" * 64
    states: States = {
        "OD": (("negative", a, None), ("negative", a, None)),
        "OS": (("negative", b, None),),
    }
    result = examine(states, fields_per_eye=1)
    assert [eye.reasons for eye in result.eyes] == [(SAME_FIELD,), ()]
    states = {
        "OD": (("negative", a, None), ("negative", a, None)),
        "OS": (("negative", a, None), ("negative", c, None)),
    }
    result = examine(states, fields_per_eye=2)
    assert [eye.reasons for eye in result.eyes] == [(SAME_IMAGE,), (SAME_IMAGE,)]
    assert [one.disposition for one in result.eyes[1].fields] == [
        Decision.UNGRADABLE,
        Decision.NO_REFER,
    ]


def test_a_shared_file_is_a_warning_also_where_nothing_is_taken_back() -> None:
    a, b = "a" * 64, "b" * 64
    both = {"OD": [field("positive", a)], "OS": [field("positive", a)]}
    assert pair_warnings(both) == [SAME_IMAGE]
    assert pair_warnings({"OD": [field("positive", a)] * 2}) == [SAME_FIELD]
    apart = {"OD": [field("positive", a)], "OS": [field("positive", b)]}
    assert pair_warnings(apart) == []
    wrapped = {"OD": [field("positive", a, "c" * 64)], "OS": [field("positive", b, "c" * 64)]}
    assert pair_warnings(wrapped) == [SAME_IMAGE]
    missing = {"OD": [field("missing", None)] * 2, "OS": [field("missing", None)] * 2}
    assert pair_warnings(missing) == []
