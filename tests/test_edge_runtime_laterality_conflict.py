"""The eye that a DICOM file names, beside the eye that the operator entered."""

from __future__ import annotations

import numpy as np
import pytest
from bundle_factory import build_bundle, fundus_png
from dicom_photo_factory import photo_bytes

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.engines import EngineFacts, ModelOutput
from edge_runtime.examination import Examination
from edge_runtime.image import decode_image
from edge_runtime.result import Decision
from edge_runtime.screener import Screener

EYE = decode_image(fundus_png()).image_hwc
OTHER = {"OD": "OS", "OS": "OD"}


class HealthyEngine:
    """Finds every eye gradable and healthy."""

    name = "onnxruntime"
    precision = "int8"
    facts = EngineFacts()

    def run(self, image_nhwc: np.ndarray, *, timeout_s: float | None = None) -> ModelOutput:
        assert image_nhwc.ndim == 4
        assert timeout_s is None
        return ModelOutput(
            logits=np.full(2, -3.0, np.float32),
            gradability_logit=3.0,
            embedding=np.zeros(4, np.float32),
            evidence=np.zeros((2, 3, 3), np.float32),
        )

    def close(self) -> None:
        """Nothing to release."""


@pytest.fixture(scope="module")
def screener(tmp_path_factory: pytest.TempPathFactory) -> Screener:
    folder = tmp_path_factory.mktemp("laterality") / "bundle"
    built = build_bundle(folder, gradability_threshold=0.1)
    bundle: Bundle = read_bundle(folder, trusted_keys=built.trusted_keys)
    return Screener(bundle, HealthyEngine())


@pytest.mark.parametrize(("says", "eye"), [("R", "OD"), ("L", "OS")])
def test_a_file_that_names_the_other_eye_is_ungradable(screener, says, eye):
    data = photo_bytes(EYE, ImageLaterality=says)
    agreed = screener.screen(Examination.single(data, eye=eye))
    assert agreed.disposition is Decision.NO_REFER
    assert not any("the file says" in text for text in agreed.warnings)
    conflict = screener.screen(Examination.single(data, eye=OTHER[eye]))
    assert conflict.disposition is Decision.UNGRADABLE
    assert conflict.eyes[0].fields[0].quality.reasons == ("laterality conflict",)
    assert conflict.eyes[0].fields[0].labels == ()
    assert eye in (conflict.eyes[0].fields[0].error or "")


def test_two_eyes_that_were_swapped_are_both_ungradable(screener):
    right, left = photo_bytes(EYE), photo_bytes(EYE[:, ::-1].copy(), ImageLaterality="L")
    assert screener.screen(Examination.both(od=right, os=left)).disposition is Decision.NO_REFER
    swapped = screener.screen(Examination.both(od=left, os=right))
    assert [eye.disposition for eye in swapped.eyes] == [Decision.UNGRADABLE] * 2


def test_a_file_that_names_an_eye_never_changes_an_unspecified_one(screener):
    result = screener.screen(Examination.single(photo_bytes(EYE, ImageLaterality="L")))
    assert result.disposition is Decision.NO_REFER
    assert result.eyes[0].eye == "unspecified"
    assert any("the file says it shows OS" in text for text in result.warnings)


def test_a_file_that_names_no_eye_takes_the_operators_word(screener):
    data = photo_bytes(EYE, ImageLaterality=None)
    for eye in ("OD", "OS", "unspecified"):
        result = screener.screen(Examination.single(data, eye=eye))
        assert result.disposition is Decision.NO_REFER
        assert result.eyes[0].eye == eye
