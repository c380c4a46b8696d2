"""Triples of the page: the right eyes, in the right shapes, hidden where something was hidden."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from training_factory import FIELD_ENCODER, TINY_TARGET, make_model, make_split

from export.demo.gallery import pretraining_triples
from export.demo.pictures import Triple
from train.arrays import circle_mask
from train.dataset_arrays import SplitArrays
from train.masking import in_field_patches
from train.pretrain import Pretrained
from train.pretrain_config import PretrainConfig
from train.pretrain_model import CFP_PATCH_PX
from train.routes import ROUTE_TABLES

NAMES = ("macular_edema", "myopic_schisis", "glaucoma", "referable_dr", "gradable")
SIDE = FIELD_ENCODER.size_px
# Two diseases at once, an ungradable one, and twice each pattern that is shown.
LABELS = np.array(
    [
        [1, 0, 1, 0, 1],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 1, 0, 1],
        [1, 0, 0, 0, 1],
        [0, 1, 0, 0, 1],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1],
        [1, 0, 0, 0, 1],
        [0, 1, 0, 0, 0],
    ],
    np.float32,
)


@pytest.fixture(scope="module")
def arm() -> Pretrained:
    routes = ROUTE_TABLES["oct_informed"]
    return Pretrained(
        model=make_model(routes, encoder=FIELD_ENCODER).eval(),
        config=PretrainConfig(encoder=FIELD_ENCODER, oct_target=TINY_TARGET),
        metrics={},
        data_fingerprint="0" * 64,
    )


@pytest.fixture(scope="module")
def test_eyes() -> SplitArrays:
    eyes = make_split(len(LABELS) // 2, size_px=SIDE)
    return replace(eyes, labels=LABELS, label_names=NAMES)


@pytest.fixture(scope="module")
def triples(arm: Pretrained, test_eyes: SplitArrays) -> tuple[Triple, ...]:
    return pretraining_triples(arm, test_eyes)


def test_one_gradable_eye_of_each_kind(triples: tuple[Triple, ...], test_eyes: SplitArrays) -> None:
    rows = (2, 4, 5, 3, 6)
    assert [triple.truth for triple in triples] == [
        "no disease", "macular edema", "myopic schisis", "glaucoma", "referable DR",
    ]  # fmt: skip
    for row, triple in zip(rows, triples, strict=True):
        assert test_eyes.scans_nvzx is not None
        assert triple.eye == test_eyes.eyes[row]
        np.testing.assert_array_equal(triple.cfp_hwc, test_eyes.images_nhwc[row])
        np.testing.assert_array_equal(triple.oct_h, test_eyes.scans_nvzx[row, 0])
        np.testing.assert_array_equal(triple.oct_v, test_eyes.scans_nvzx[row, 1])


def test_shapes(triples: tuple[Triple, ...]) -> None:
    for triple in triples:
        for picture in (triple.cfp_hwc, triple.cfp_masked_hwc, triple.cfp_reconstructed_hwc):
            assert picture.shape == (SIDE, SIDE, 3)
            assert picture.dtype == np.uint8
        for side in ("h", "v"):
            target = getattr(triple, f"oct_target_{side}")
            predicted = getattr(triple, f"oct_predicted_{side}")
            assert target.shape == predicted.shape == (TINY_TARGET.side_px,) * 2
            assert np.isfinite(predicted).all()
            assert abs(float(target.mean())) < 1e-3  # standardised, as it was trained on


def patches(image_hwc: np.ndarray) -> np.ndarray:
    """(rows of patches, columns of patches, pixels and colours)."""
    count = SIDE // CFP_PATCH_PX
    cut = image_hwc.reshape(count, CFP_PATCH_PX, count, CFP_PATCH_PX, 3)
    return cut.transpose(0, 2, 1, 3, 4).reshape(count, count, -1)


def test_hidden_patches_are_rebuilt_and_visible_pixels_are_the_photographs(
    arm: Pretrained, triples: tuple[Triple, ...]
) -> None:
    count = SIDE // CFP_PATCH_PX
    in_field = in_field_patches(SIDE, CFP_PATCH_PX).reshape(count, count).numpy()
    assert not in_field.all()  # or nothing would be shown by the next line but one
    (route,) = (one for one in arm.model.routes if one.name == "cfp<-cfp")
    inside = patches(np.repeat(circle_mask(SIDE).numpy()[..., None], 3, -1).astype(np.uint8)) == 1
    for triple in triples:
        hidden = (patches(triple.cfp_masked_hwc) == 128).all(-1)  # mid grey is the network's 0
        assert hidden.sum() == round(route.mask_ratio * in_field.sum())
        assert not (hidden & ~in_field).any()
        shown, original = patches(triple.cfp_masked_hwc), patches(triple.cfp_hwc)
        rebuilt = patches(triple.cfp_reconstructed_hwc)
        np.testing.assert_array_equal(shown[~hidden], original[~hidden])
        np.testing.assert_array_equal(rebuilt[~hidden], original[~hidden])
        differs = rebuilt != original
        assert not (differs & ~inside).any()  # outside the field nothing is invented
        share = (differs & inside).sum(-1)[hidden] / inside.sum(-1)[hidden]
        assert share.min() > 0.8


def test_the_same_triples_every_time(
    arm: Pretrained, test_eyes: SplitArrays, triples: tuple[Triple, ...]
) -> None:
    again = pretraining_triples(arm, test_eyes)
    for first, second in zip(triples, again, strict=True):
        np.testing.assert_array_equal(first.cfp_masked_hwc, second.cfp_masked_hwc)
        np.testing.assert_array_equal(first.oct_predicted_h, second.oct_predicted_h)


def test_a_kind_that_the_split_lacks_is_left_out(arm: Pretrained, test_eyes: SplitArrays) -> None:
    without_schisis = test_eyes.keep(test_eyes.label("myopic_schisis") == 0)
    found = pretraining_triples(arm, without_schisis)
    assert len(found) == 4
    assert all("schisis" not in triple.truth for triple in found)
