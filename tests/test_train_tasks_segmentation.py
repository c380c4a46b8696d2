"""The segmentation tasks: what is drawn, what is learnt, what is scored."""

from __future__ import annotations

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from dataset_factory import make_cfp, make_rows, write_image, write_index
from training_factory import TINY_ENCODER

from edge_runtime.errors import ConfigError, DataError
from train.encoder import CfpEncoder
from train.segmentation_net import SegmentationNet
from train.tasks.data import load_task_data
from train.tasks.segmentation import (
    SegmentationSettings,
    load_segmentation_material,
    run_segmentation,
)

TARGETS = ("disc", "vessels", "lesions")
QUICK = SegmentationSettings(num_labeled=4, num_steps=3, batch_size=2, decoder_width=8)


def draw_eye(root, stem: str, number: int) -> None:
    """A bright disc that only its mask tells apart from noise, at another place in every eye."""
    image, mask = make_cfp(number), np.zeros((128, 128), np.uint8)
    place = np.random.default_rng(number).integers(40, 88, 2).tolist()
    cv2.circle(image, place, 14, (250, 240, 220), -1)
    cv2.circle(mask, place, 14, 255, -1)
    write_image(root / "cfp" / stem, image)
    write_image(root / "disc" / stem, mask)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """18 patients; lesions are empty everywhere; one test eye lacks vessels, one is ungradable."""
    root = tmp_path_factory.mktemp("eyes")
    rows = make_rows(root, num_patients=18)
    for number, row in enumerate(rows):
        draw_eye(root, row["cfp"].removeprefix("cfp/"), number)
        row["gradable"] = "1"
    test = [row for row in rows if row["split"] == "test"]
    test[0]["vessels"], test[1]["gradable"] = "", "0"
    columns = (*list(rows[0])[:5], "cfp", "oct_h", "oct_v", "vessels", "disc", "cup", "lesions")
    write_index(root, rows, columns=(*dict.fromkeys((*columns, "gradable")),))
    return root


@pytest.fixture(scope="module")
def data(folder):
    return load_task_data(folder, 32, with_oct=False)


def encoder(seed: int = 0) -> CfpEncoder:
    torch.manual_seed(seed)
    return CfpEncoder(TINY_ENCODER).eval()


def test_a_result_for_each_target_on_the_eyes_that_have_it(data):
    found = run_segmentation(encoder(), data, QUICK, targets=TARGETS, seed=0)
    assert tuple(found) == TARGETS
    gradable = len(data.test) - 1
    assert {name: one.num_images for name, one in found.items()} == {
        "disc": gradable,
        "vessels": gradable - 1,
        "lesions": gradable,
    }
    for name, one in found.items():
        assert one.target == name
        assert one.seconds > 0
        for values in (one.dice_n, one.hd95_n, one.false_positive_n, one.patient_ids):
            assert values.shape == (one.num_images,)
        assert (one.cldice_n is not None) == (name == "vessels")
        empty = np.isnan(one.dice_n)
        assert empty.sum() == one.num_empty
        assert np.array_equal(np.isnan(one.hd95_n), empty)
        assert np.array_equal(np.isfinite(one.false_positive_n), empty)
    assert found["lesions"].num_empty == gradable
    assert found["disc"].num_empty == 0


def test_the_seed_decides_and_the_encoder_is_left_alone(data):
    own = encoder()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    first, second = (
        run_segmentation(own, data, QUICK, targets=TARGETS, seed=1)["disc"] for _ in range(2)
    )
    assert np.array_equal(first.dice_n, second.dice_n)
    assert all(torch.equal(before[name], value) for name, value in own.state_dict().items())
    assert all(parameter.requires_grad for parameter in own.parameters())
    one, other = (
        load_segmentation_material(data, TARGETS, num_labeled=4, seed=seed) for seed in (1, 2)
    )
    assert not np.array_equal(one.train.images_nhwc, other.train.images_nhwc)
    assert np.array_equal(one.test.images_nhwc, other.test.images_nhwc)


def test_material_read_before_gives_the_same_and_only_for_what_it_was_read(data):
    material = load_segmentation_material(data, TARGETS, num_labeled=4, seed=1)
    fresh = run_segmentation(encoder(), data, QUICK, targets=TARGETS, seed=1)
    shared = run_segmentation(encoder(), data, QUICK, targets=TARGETS, seed=1, material=material)
    assert np.array_equal(fresh["disc"].dice_n, shared["disc"].dice_n)
    with pytest.raises(ConfigError, match="read it again"):
        run_segmentation(encoder(), data, QUICK, targets=TARGETS, seed=2, material=material)


def test_masks_lie_on_the_images_of_the_same_row(data):
    material = load_segmentation_material(data, ("disc",), num_labeled=0, seed=0)
    for eyes in (material.train, material.test):
        for image, mask in zip(eyes.images_nhwc, eyes.masks.masks_ncss[:, 0], strict=True):
            green = image[..., 1].astype(float)
            assert green[mask].mean() > green[~mask].mean() + 60


@pytest.mark.slow
def test_it_learns_and_moving_the_encoder_does_not_harm(data):
    settings = SegmentationSettings(num_labeled=0, num_steps=120, batch_size=6, bfloat16=False)
    found = run_segmentation(encoder(), data, settings, targets=("disc",), seed=0)["disc"]
    frozen = replace(settings, encoder_rate_scale=0.0)
    held = run_segmentation(encoder(), data, frozen, targets=("disc",), seed=0)["disc"]
    assert np.mean(found.dice_n) > 0.6
    assert np.mean(found.dice_n) > np.mean(held.dice_n) - 0.05


def test_a_frozen_encoder_gets_no_gradient_and_the_net_keeps_batch_norm():
    net = SegmentationNet(encoder(), (0.1, 0.001), width=8)
    before = {k: v.clone() for k, v in net.encoder.state_dict().items()}
    net.frozen = True
    logits = net(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 2, 32, 32)
    logits.sum().backward()
    assert all(parameter.grad is None for parameter in net.encoder.parameters())
    assert all(torch.equal(before[k], v) for k, v in net.encoder.state_dict().items())
    # the biases start at the shares (0.001 is lifted to 0.01)
    assert torch.sigmoid(net.head.bias).tolist() == pytest.approx([0.1] * 4 + [0.01] * 4)
    with pytest.raises(ConfigError, match="0 targets must be >= 1"):
        SegmentationNet(encoder(), ())
    with pytest.raises(ConfigError, match="width 10 a multiple of 4"):
        SegmentationNet(encoder(), (0.1,), width=10)


def test_refusals(data):
    with pytest.raises(DataError, match="99 training eyes with masks were asked for, 12 gradable"):
        run_segmentation(encoder(), data, replace(QUICK, num_labeled=99), targets=TARGETS, seed=0)
    with pytest.raises(DataError, match="split 'train' has no gradable eye with a mask of fovea"):
        run_segmentation(encoder(), data, QUICK, targets=("fovea",), seed=0)
    fewer = replace(data, test=data.test.keep(np.arange(len(data.test)) > 0))
    with pytest.raises(DataError, match="load the split whole"):
        run_segmentation(encoder(), fewer, QUICK, targets=TARGETS, seed=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps 0"),
        ({"num_labeled": -1}, "num_labeled -1"),
        ({"learning_rate": 1.0}, "learning_rate 1.0"),
        ({"encoder_rate_scale": 1.5}, "encoder_rate_scale 1.5"),
        ({"threshold": 1.0}, "threshold 1.0 must be in"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        SegmentationSettings(**changes)
    assert {field.name for field in fields(SegmentationSettings)} >= set(changes)
