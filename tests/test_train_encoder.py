"""The encoders: shapes, refusals, and what may influence what."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from training_factory import FIELD_ENCODER, TINY_ENCODER

from edge_runtime.errors import ConfigError
from train.encoder import CfpEncoder, EncoderConfig, OctEncoder


@pytest.mark.parametrize("config", [TINY_ENCODER, FIELD_ENCODER, replace(TINY_ENCODER, depth=0)])
def test_one_token_per_16_pixels(config):
    encoder = CfpEncoder(config).eval()
    with torch.no_grad():
        tokens = encoder(torch.randn(2, 3, config.size_px, config.size_px))
    assert tokens.shape == (2, config.num_tokens, config.width)
    assert config.num_tokens == (config.size_px // 16) ** 2
    assert torch.isfinite(tokens).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size_px": 100}, "size_px is 100; it must be a multiple of 16"),
        ({"size_px": 16}, "size_px is 16"),
        ({"width": 130}, "width 130 is not a multiple of num_heads 4"),
        ({"depth": -1}, "depth -1"),
        ({"stem_width": 2}, "stem_width 2"),
    ],
)
def test_shapes_that_cannot_be_built_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        EncoderConfig(**changes)


def test_photographs_of_a_batch_do_not_see_each_other():
    torch.manual_seed(0)
    encoder = CfpEncoder(FIELD_ENCODER).eval()
    batch = torch.randn(3, 3, 96, 96)
    changed = batch.clone()
    changed[2] = 0
    with torch.no_grad():
        before, after = encoder(batch), encoder(changed)
    assert torch.equal(before[:2], after[:2])
    assert not torch.equal(before[2], after[2])


def test_position_matters():
    torch.manual_seed(0)
    encoder = CfpEncoder(FIELD_ENCODER).eval()
    image = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        pooled, flipped = encoder(image).mean(1), encoder(image.flip(-1)).mean(1)
    assert not torch.allclose(pooled, flipped, atol=1e-4)


def test_views_of_an_eye_do_not_see_each_other():
    torch.manual_seed(0)
    encoder = OctEncoder(side_px=16, patch_px=8, num_views=2, width=16).eval()
    scans = torch.randn(3, 2, 16, 16)
    changed = scans.clone()
    changed[:, 1] = 0
    with torch.no_grad():
        before, after = encoder(scans), encoder(changed)
    assert before.shape == (3, 2, 4, 16)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1])


def test_the_views_are_told_apart():
    torch.manual_seed(0)
    encoder = OctEncoder(side_px=16, patch_px=8, num_views=2, width=16).eval()
    scan = torch.randn(2, 1, 16, 16).expand(2, 2, 16, 16)
    with torch.no_grad():
        tokens = encoder(scan)
    assert not torch.allclose(tokens[:, 0], tokens[:, 1], atol=1e-4)


@pytest.mark.parametrize("config", [TINY_ENCODER, FIELD_ENCODER, replace(TINY_ENCODER, depth=0)])
def test_the_pyramid_ends_in_the_tokens_and_changes_nothing(config):
    torch.manual_seed(0)
    encoder = CfpEncoder(config).eval()
    batch = torch.randn(2, 3, config.size_px, config.size_px)
    with torch.no_grad():
        tokens = encoder(batch)
        maps = encoder.pyramid(batch)
        assert torch.equal(encoder(batch), tokens)
    assert [config.size_px // one.shape[-1] for one in maps] == [2, 4, 8, 16]
    assert all(one.shape[2] == one.shape[3] for one in maps)
    assert torch.equal(maps[-1].flatten(2).transpose(1, 2), tokens)
    with torch.no_grad():
        stem = encoder.stem[0](batch)
    assert torch.equal(maps[0], stem)
