"""One or two fields an eye: from files to the result, whatever becomes of each picture."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from bundle_factory import build_bundle, fundus_png
from fundus_factory import centred_fundus, exif_block, jpeg_bytes, with_exif
from picture_factory import wrapped_jpeg
from screener_factory import GOOD, OTHER, FakeEngine, with_band

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.engines import ModelOutput
from edge_runtime.examination import Examination, EyeImage
from edge_runtime.preprocess import load_for_model
from edge_runtime.result import Decision, ScreeningResult
from edge_runtime.screener import MORE_FIELDS, SAME_FIELD, SAME_IMAGE, Screener

THIRD, FOURTH = fundus_png(seed=2), fundus_png(seed=3)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("fields") / "bundle"
    built = build_bundle(folder, gradability_threshold=0.1)
    return read_bundle(built.folder, trusted_keys=built.trusted_keys)


def asking_for(bundle: Bundle, fields_per_eye: int) -> Bundle:
    protocol = replace(bundle.manifest.protocol, fields_per_eye=fields_per_eye)
    return replace(bundle, manifest=replace(bundle.manifest, protocol=protocol))


class ByPicture(FakeEngine):
    """An engine that answers by the picture: the state that a test gave to it."""

    def __init__(self, bundle: Bundle, states: Mapping[bytes, str]) -> None:
        super().__init__()
        spec = bundle.manifest.preprocess_spec()
        self.states = {
            load_for_model(data, spec)[1].image_hwc.tobytes(): state
            for data, state in states.items()
        }
        assert len(self.states) == len(states)

    def run(self, image_nhwc: np.ndarray, *, timeout_s: float | None = None) -> ModelOutput:
        state = self.states[image_nhwc[0].tobytes()]
        first = {"doubtful": -0.5, "positive": 3.0}.get(state, -3.0)
        gradability = -9.0 if state == "low gradability" else 3.0
        output = super().run(image_nhwc, timeout_s=timeout_s)
        return replace(
            output, logits=np.array([first, -3.0], np.float32), gradability_logit=gradability
        )


_RUN = ("low gradability", "doubtful", "negative", "positive")
_EVERY = ("missing", "refused", *_RUN)


def check_every_combination(
    bundle: Bundle,
    places: tuple[str, ...],
    fields_per_eye: int,
    states_of_one: tuple[str, ...] = _EVERY,
) -> None:
    """From files to the result, for every state of the picture in every place."""
    files = {
        (place, state): fundus_png(side_px=80, seed=10 * place + k + 20)
        for place in range(len(places))
        for k, state in enumerate(_RUN)
    }
    banded = asking_for(with_band(bundle, 0.2), fields_per_eye)
    engine = ByPicture(banded, {data: state for (_, state), data in files.items()})
    screener = Screener(banded, engine)
    for states in itertools.product(states_of_one, repeat=len(places)):
        given = list(enumerate(states))
        images = tuple(
            EyeImage(eye=places[k], source=files.get((k, s), b"junk" if s == "refused" else None))
            for k, s in given
        )
        result = screener.screen(Examination(images=images))
        expected = {}
        for eye in dict.fromkeys(places):
            mine = [s for k, s in given if places[k] == eye]
            complete = len(mine) >= fields_per_eye and set(mine) == {"negative"}
            expected[eye] = (
                "refer" if "positive" in mine else "no_refer" if complete else "ungradable"
            )
        assert {one.eye: one.disposition.value for one in result.eyes} == expected, states
        words = set(expected.values())
        assert result.disposition.value == (
            "refer" if "refer" in words else "ungradable" if "ungradable" in words else "no_refer"
        )
        for eye in result.eyes:
            assert len(eye.fields) == max(fields_per_eye, places.count(eye.eye))
        assert ScreeningResult.from_json(result.to_json()).to_json() == result.to_json()


@pytest.mark.parametrize("fields_per_eye", [1, 2])
@pytest.mark.parametrize("places", [("OD",), ("OD", "OD"), ("OD", "OS"), ("unspecified",) * 2])
def test_every_state_of_two_pictures(
    bundle: Bundle, places: tuple[str, ...], fields_per_eye: int
) -> None:
    check_every_combination(bundle, places, fields_per_eye)


@pytest.mark.slow
@pytest.mark.parametrize("fields_per_eye", [1, 2])
def test_every_state_of_three_pictures(bundle: Bundle, fields_per_eye: int) -> None:
    check_every_combination(bundle, ("OS", "OD", "OD"), fields_per_eye)


@pytest.mark.slow
def test_two_fields_of_both_eyes(bundle: Bundle) -> None:
    """All states of four: test_edge_runtime_eye_joining.py; here one of each disposition."""
    one_of_each = ("missing", "negative", "positive")
    check_every_combination(bundle, ("OD", "OD", "OS", "OS"), 2, one_of_each)


def test_a_field_that_the_protocol_asks_for_and_nobody_gave_is_a_missing_image(
    bundle: Bundle,
) -> None:
    result = Screener(asking_for(bundle, 2), FakeEngine()).screen(GOOD)
    (eye,) = result.eyes
    assert [one.disposition for one in eye.fields] == [Decision.NO_REFER, Decision.UNGRADABLE]
    assert eye.reasons == ("missing image",)
    assert result.disposition is Decision.UNGRADABLE
    both = Examination.both(od=[GOOD, OTHER], os=[THIRD, FOURTH])
    assert Screener(asking_for(bundle, 2), FakeEngine()).screen(both).disposition is (
        Decision.NO_REFER
    )


def test_one_file_for_two_fields_is_never_no_refer(bundle: Bundle) -> None:
    for fields_per_eye in (1, 2):
        screener = Screener(asking_for(bundle, fields_per_eye), FakeEngine())
        result = screener.screen(Examination.both(od=[GOOD, GOOD], os=[THIRD, FOURTH]))
        assert result.disposition is Decision.UNGRADABLE
        assert [eye.reasons for eye in result.eyes] == [(SAME_FIELD,), ()]
        assert SAME_FIELD in result.warnings
        result = screener.screen(Examination.both(od=[GOOD, OTHER], os=[OTHER, FOURTH]))
        assert [eye.reasons for eye in result.eyes] == [(SAME_IMAGE,), (SAME_IMAGE,)]
    sick = Screener(bundle, FakeEngine((9.0, 9.0)))
    assert sick.screen(Examination.single([GOOD, GOOD])).disposition is Decision.REFER


def test_one_photograph_in_two_files_is_never_no_refer(bundle: Bundle) -> None:
    eye = centred_fundus(160)
    jpeg = jpeg_bytes(eye)
    commented = jpeg[:2] + b"\xff\xfe\x00\x04hi" + jpeg[2:]
    for twin in (commented, wrapped_jpeg(eye, jpeg)):
        one_eye = Screener(bundle, FakeEngine()).screen(Examination.single([twin, jpeg], eye="OD"))
        assert one_eye.eyes[0].reasons == (SAME_FIELD,)
        result = Screener(bundle, FakeEngine()).screen(Examination.both(od=twin, os=jpeg))
        assert [one.reasons for one in result.eyes] == [(SAME_IMAGE,), (SAME_IMAGE,)]
        assert SAME_IMAGE in result.warnings
        assert result.disposition is Decision.UNGRADABLE
        first, second = (one.fields[0] for one in result.eyes)
        assert first.image_sha256 != second.image_sha256
        assert first.input_sha256 == second.input_sha256 is not None
        sick = Screener(bundle, FakeEngine((9.0, 9.0))).screen(Examination.both(od=twin, os=jpeg))
        assert sick.disposition is Decision.REFER
        assert SAME_IMAGE in sick.warnings


def test_only_a_picture_beside_another_has_its_input_hashed(bundle: Bundle) -> None:
    screener = Screener(bundle, FakeEngine())
    for alone in (Examination.single(GOOD), Examination.both(od=GOOD, os=None)):
        assert {one.fields[0].input_sha256 for one in screener.screen(alone).eyes} == {None}
    result = screener.screen(Examination.both(od=GOOD, os=b"junk"))
    spec = bundle.manifest.preprocess_spec()
    square = load_for_model(GOOD, spec)[1].image_hwc
    assert [one.fields[0].input_sha256 for one in result.eyes] == [
        hashlib.sha256(square.tobytes()).hexdigest(),
        None,
    ]


def test_a_second_picture_for_a_protocol_of_one_is_judged_and_noted(bundle: Bundle) -> None:
    exam = Examination.single([GOOD, OTHER], eye="OS")
    result = Screener(bundle, FakeEngine()).screen(exam)
    assert result.disposition is Decision.NO_REFER
    assert result.warnings == (f"OS: {MORE_FIELDS.format(number=1)}",)
    blurred = Screener(bundle, FakeEngine()).screen(Examination.single([GOOD, b"junk"]))
    assert blurred.disposition is Decision.UNGRADABLE
    within = Screener(asking_for(bundle, 2), FakeEngine()).screen(exam)
    assert within.warnings == ()


def test_a_warning_says_which_field_it_is_about(bundle: Bundle) -> None:
    turned = with_exif(jpeg_bytes(centred_fundus(160)), exif_block(3))
    alone = Screener(bundle, FakeEngine()).screen(Examination.single(turned, eye="OD"))
    (text,) = alone.warnings
    assert text.startswith("OD: ")
    second = Screener(asking_for(bundle, 2), FakeEngine()).screen(
        Examination.single([GOOD, turned], eye="OD")
    )
    assert second.warnings == (text.replace("OD: ", "OD field 2: "),)


def test_the_deadline_is_of_all_fields(bundle: Bundle) -> None:
    slow = FakeEngine((9.0, 9.0), before=lambda: time.sleep(0.6))
    exam = Examination.both(od=[GOOD, OTHER], os=[THIRD, FOURTH])
    result = Screener(asking_for(bundle, 2), slow).screen(exam, deadline_ms=500)
    assert {one.quality.reasons for eye in result.eyes for one in eye.fields} == {
        ("deadline exceeded",)
    }
    assert slow.num_runs <= 1


def test_pictures_of_an_examination_by_eye() -> None:
    exam = Examination.both(od=[GOOD, None], os=OTHER)
    assert {eye: len(images) for eye, images in exam.by_eye.items()} == {"OD": 2, "OS": 1}
    assert exam.by_eye["OD"][1].source is None
    empty = Examination.both(od=[], os=OTHER)
    assert [image.source for image in empty.by_eye["OD"]] == [None]
    mixed = tuple(EyeImage(eye=eye, source=GOOD) for eye in ("OS", "OD", "OS"))
    assert list(Examination(images=mixed).by_eye) == ["OS", "OD"]
