"""The four switches: exact counts, neutral settings, slow references, keys that stay."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import ConfigError
from train.arrays import circle_mask, patchify
from train.masking import hidden_patches, in_field_patches
from train.structure.config import STRUCTURES, VIEW_STRUCTURES, StructureConfig
from train.structure.switches import (
    attention_bias,
    cross_attention_bias,
    line_bias,
    macula_center,
    patch_loss_weights,
    structure_loss,
    structured_hidden_patches,
    token_centers,
)

# One core per test process: threads cost more than they bring at these sizes.
torch.set_num_threads(1)

OFF = StructureConfig()
FOV, VESSELS, DISC, MACULA = range(4)
SIDE = 6
TOKENS = SIDE * SIDE
IN_FIELD = in_field_patches(96, 16)


def masks(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def field_tokens() -> torch.Tensor:
    return patchify(circle_mask(96).float()[None, None], 16).mean(-1)[0]


def random_maps(num: int = 4, seed: int = 0) -> torch.Tensor:
    """Maps that lie inside the field, as pooled ones do."""
    field = field_tokens()
    maps = torch.rand(num, TOKENS, 4, generator=masks(seed)) * field[:, None]
    maps[..., FOV] = field
    return maps


def uniform_maps(num: int = 4, level: float = 0.05) -> torch.Tensor:
    field = field_tokens()
    maps = (level * field)[None, :, None].repeat(num, 1, 4)
    maps[..., FOV] = field
    return maps


def macula_at(x: float, y: float, width: float = 0.27) -> torch.Tensor:
    maps = uniform_maps(1)
    axis = (torch.arange(96) + 0.5) / 48 - 1
    blob = torch.exp(-((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / width**2)
    maps[0, :, MACULA] = patchify((blob * circle_mask(96))[None, None], 16).mean(-1)[0]
    return maps


class TestConfig:
    def test_everything_is_off_by_default_and_each_switch_turns_on_alone(self):
        assert not OFF.needs_structures
        for change in (
            {"hide_weight": 1 / 1.5},
            {"attention": "map"},
            {"loss_alpha": 1.0},
            {"target_weight": 0.1},
        ):
            config = replace(OFF, **change)
            assert config.needs_structures
            for name in {"hide_weight", "attention", "loss_alpha", "target_weight"} - set(change):
                assert getattr(config, name) == getattr(OFF, name)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"focus": "disc+fovea"}, "names 'fovea'"),
            ({"focus": ""}, "names ''"),
            ({"hide_weight": 0.0}, "hide_weight is 0.0"),
            ({"hide_weight": math.nan}, "hide_weight is nan"),
            ({"hide_weight": True}, "hide_weight is True"),
            ({"attention": "cross"}, "choose one of off, map, line"),
            ({"attention_eps": -0.1}, "attention_eps is -0.1"),
            ({"line_width": 0.0}, "line_width is 0.0"),
            ({"loss_alpha": math.inf}, "loss_alpha is inf"),
            ({"target_weight": "1"}, "target_weight is '1'"),
        ],
    )
    def test_refuses(self, change, message):
        with pytest.raises(ConfigError, match=message):
            StructureConfig(**change)

    def test_views_and_focus_name_structures(self):
        assert set(VIEW_STRUCTURES.values()) <= set(STRUCTURES)
        assert OFF.focus_columns == (DISC, MACULA)
        assert replace(OFF, focus="vessels").focus_columns == (VESSELS,)


class TestSampling:
    @settings(max_examples=40, deadline=None)
    @given(
        ratio=st.floats(0.0, 0.99),
        hide_weight=st.floats(0.01, 100.0),
        seed=st.integers(0, 2**31),
    )
    def test_counts_are_exact_and_the_outside_is_never_hidden(self, ratio, hide_weight, seed):
        config = replace(OFF, hide_weight=hide_weight)
        hidden = structured_hidden_patches(
            3, IN_FIELD, ratio, masks(seed), random_maps(3, seed), config
        )
        expected = max(1, round(ratio * int(IN_FIELD.sum()))) if ratio > 0 else 0
        assert hidden.dtype == torch.bool
        assert hidden.sum(1).tolist() == [expected] * 3
        assert not (hidden & ~IN_FIELD).any()

    def test_off_draws_what_the_plain_mask_draws(self):
        plain = hidden_patches(64, IN_FIELD, 0.5, masks(3))
        weighted = structured_hidden_patches(64, IN_FIELD, 0.5, masks(3), random_maps(64), OFF)
        assert torch.equal(plain, weighted)

    def test_a_uniform_map_draws_what_the_plain_mask_draws(self):
        config = replace(OFF, hide_weight=5.0)
        weighted = structured_hidden_patches(64, IN_FIELD, 0.5, masks(3), uniform_maps(64), config)
        assert torch.equal(hidden_patches(64, IN_FIELD, 0.5, masks(3)), weighted)

    @pytest.mark.parametrize("hide_weight", [1 / 1.5, 1.0, 4.0])
    def test_one_draw_follows_the_weights(self, hide_weight):
        """With one hidden patch the share of a token is its weight over the sum of weights."""
        num, inside = 6000, IN_FIELD.nonzero()[:, 0]
        maps = uniform_maps(num, level=0.0)
        maps[:, inside[:8], DISC] = maps[:, inside[:8], FOV]
        hidden = structured_hidden_patches(
            num, IN_FIELD, 1e-6, masks(), maps, replace(OFF, hide_weight=hide_weight)
        )
        share = float(hidden[:, inside[:8]].sum() / num)
        expected = 8 * hide_weight / (8 * hide_weight + len(inside) - 8)
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / num)

    def test_many_draws_against_numpy_sampling_without_replacement(self):
        num, inside = 4000, IN_FIELD.nonzero()[:, 0].numpy()
        one = random_maps(1, seed=9)
        config = replace(OFF, hide_weight=6.0, focus="vessels")
        hidden = structured_hidden_patches(
            num, IN_FIELD, 0.5, masks(), one.expand(num, -1, -1), config
        )
        visible = one[0, inside, VESSELS] / one[0, inside, FOV]
        weight = 1 + 5 * visible.double().numpy()
        rng, count = np.random.default_rng(0), np.zeros(len(inside))
        for _ in range(num):
            chosen = rng.choice(len(inside), len(inside) // 2, False, weight / weight.sum())
            count[chosen] += 1
        ours = hidden[:, inside].float().mean(0).numpy()
        # Five standard errors of the difference of two shares near one half.
        assert np.abs(ours - count / num).max() < 5 * math.sqrt(2 * 0.25 / num)
        assert np.corrcoef(ours, weight)[0, 1] > 0.9

    def test_refuses_maps_of_another_batch(self):
        with pytest.raises(ValueError, match="for 3 images of 36 tokens"):
            structured_hidden_patches(3, IN_FIELD, 0.5, masks(), random_maps(2), OFF)


class TestAttention:
    def test_against_a_slow_reference(self):
        maps, eps = random_maps(3), 0.05
        bias = attention_bias(maps, ("macula", "disc"), eps, queries_per_view=5)
        assert bias.shape == (3, 10, TOKENS)
        assert bias.dtype == torch.float32
        for n in range(3):
            for q in range(10):
                gains = [
                    min(float(maps[n, t, MACULA if q < 5 else DISC]), float(maps[n, t, FOV]))
                    for t in range(TOKENS)
                ]
                expected = [math.log(eps + gain / max(gains)) for gain in gains]
                assert bias[n, q].tolist() == pytest.approx(expected, abs=1e-5)

    def test_a_structure_not_found_leaves_the_field_of_view_alone(self):
        bias = attention_bias(uniform_maps(), ("macula",), 0.05, queries_per_view=2)
        field = attention_bias(uniform_maps(), ("fov",), 0.05, queries_per_view=2)
        torch.testing.assert_close(bias, field)
        for form in ("map", "line"):
            config = replace(OFF, attention=form)
            views = ("macula_h", "macula_v")
            both = cross_attention_bias(uniform_maps(), views, (2, 3), config)
            torch.testing.assert_close(both, field[:, :1].expand(-1, 12, -1))

    @pytest.mark.parametrize("form", ["map", "line"])
    def test_hard_bias_keeps_a_key_for_every_query(self, form):
        maps = random_maps(4)
        maps[0] = 0.0
        maps[1, :, MACULA] = 0.0
        maps[2, :, MACULA] = 0.0
        maps[2, 14, MACULA] = 0.5
        config = replace(OFF, attention=form, attention_eps=0.0)
        bias = cross_attention_bias(maps, ("macula_h", "macula_v"), (4, 4), config)
        assert (bias.isfinite().sum(-1) >= 1).all()
        assert not bias.isnan().any()
        attended = bias.softmax(-1)
        torch.testing.assert_close(attended.sum(-1), torch.ones(4, 32))
        if form == "map":
            assert attended[2, :, 14].tolist() == [1.0] * 32

    def test_off_is_none_and_unknown_names_are_refused(self):
        maps = random_maps(1)
        assert cross_attention_bias(maps, ("macula_h",), (4, 4), OFF) is None
        with pytest.raises(ConfigError, match="unknown view 'macula'; use one of macula_h"):
            cross_attention_bias(maps, ("macula",), (4, 4), replace(OFF, attention="line"))
        with pytest.raises(ConfigError, match="unknown structure 'macula_h'"):
            attention_bias(maps, ("macula_h",), 0.05, queries_per_view=1)

    @pytest.mark.parametrize(("view", "axis"), [("macula_h", 0), ("macula_v", 1)])
    def test_the_line_form_runs_along_the_scan(self, view, axis):
        maps = macula_at(-0.1, 0.15)
        bias = line_bias(maps, (view,), 0.0, scan_grid=(3, 8), width=0.2)[0]
        centers = token_centers(TOKENS)
        weights = bias.softmax(-1) @ centers
        along, across = weights[:8, axis], weights[:8, 1 - axis]
        assert (along.diff() > 0).all()
        # Tokens are 1/3 wide: the mean stays within half a token of the place meant.
        places = (-0.1, 0.15)[axis] + 0.46 * ((torch.arange(8) + 0.5) / 4 - 1)
        assert float((along - places).abs().max()) < 1 / 6
        assert float((across - (-0.1, 0.15)[1 - axis]).abs().max()) < 1 / 6
        torch.testing.assert_close(bias[:8], bias[16:])

    def test_the_line_form_against_a_slow_reference(self):
        maps, eps, width = macula_at(0.05, 0.0), 0.05, 0.25
        bias = line_bias(maps, ("macula_v",), eps, scan_grid=(2, 4), width=width)[0]
        (fx, fy), centers = macula_center(maps)[0][0].tolist(), token_centers(TOKENS).tolist()
        for x in range(4):
            place = (fx, fy + 0.46 * (2 * (x + 0.5) / 4 - 1))
            gains = [
                float(maps[0, t, FOV]) * math.exp(-(math.dist(centers[t], place) ** 2) / width**2)
                for t in range(TOKENS)
            ]
            expected = [math.log(eps + gain / max(gains)) for gain in gains]
            assert bias[4 + x].tolist() == pytest.approx(expected, abs=1e-4)

    def test_views_that_are_no_line_keep_the_map(self):
        maps = macula_at(0.0, 0.0)
        bias = line_bias(maps, ("disc", "other"), 0.05, scan_grid=(2, 2), width=0.2)
        plain = attention_bias(maps, ("disc", "fov"), 0.05, queries_per_view=4)
        torch.testing.assert_close(bias, plain)

    @pytest.mark.parametrize("place", [(0.0, 0.0), (-0.12, 0.07), (0.3, -0.2)])
    def test_the_centroid_finds_the_fovea_between_tokens(self, place):
        center, found = macula_center(macula_at(*place))
        assert found.tolist() == [True]
        assert center[0].tolist() == pytest.approx(place, abs=0.02)
        assert macula_center(uniform_maps(2))[1].tolist() == [False, False]
        assert macula_center(torch.zeros(1, TOKENS, 4))[1].tolist() == [False]

    def test_token_centers_are_row_major(self):
        centers = token_centers(4).tolist()
        assert centers == [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]]
        with pytest.raises(ValueError, match="5 tokens do not fill a square"):
            token_centers(5)


class TestLossWeights:
    @settings(max_examples=25, deadline=None)
    @given(alpha=st.floats(0, 50), seed=st.integers(0, 1000))
    def test_the_total_never_changes(self, alpha, seed):
        scored = hidden_patches(4, IN_FIELD, 0.5, masks(seed))
        weights = patch_loss_weights(random_maps(4, seed), scored, alpha, OFF)
        assert weights.dtype == torch.float32
        assert (weights[~scored] == 0).all()
        torch.testing.assert_close(weights.sum(1), scored.sum(1).float(), rtol=1e-5, atol=1e-5)

    def test_against_the_formula(self):
        maps, scored = random_maps(1), IN_FIELD[None]
        weights = patch_loss_weights(maps, scored, 2.0, OFF)[0]
        raw = [
            1 + 2.0 * max(float(maps[0, t, DISC]), float(maps[0, t, MACULA])) / float(maps[0, t, 0])
            for t in range(TOKENS)
            if IN_FIELD[t]
        ]
        expected = np.array(raw) / np.mean(raw)
        assert weights[IN_FIELD].tolist() == pytest.approx(expected.tolist(), rel=1e-5)

    def test_off_and_not_found_weigh_all_alike(self):
        scored = hidden_patches(4, IN_FIELD, 0.5, masks())
        for maps, alpha in ((random_maps(), 0.0), (uniform_maps(), 3.0)):
            weights = patch_loss_weights(maps, scored, alpha, OFF)
            torch.testing.assert_close(weights, scored.float())

    def test_nothing_scored_gives_zero_not_nan(self):
        nothing = torch.zeros(4, TOKENS, dtype=torch.bool)
        weights = patch_loss_weights(random_maps(), nothing, 1.0, OFF)
        assert weights.abs().sum() == 0


class TestTarget:
    def test_against_a_slow_reference(self):
        maps, quality = random_maps(2), torch.rand(2, 4, generator=masks(5))
        logits = torch.randn(2, TOKENS, 4, generator=masks(6))
        cost = weight_sum = 0.0
        for n in range(2):
            for t in range(TOKENS):
                for k in range(4):
                    share = 1.0 if k == FOV else float(maps[n, t, FOV])
                    weight = share * float(quality[n, k])
                    p, s = 1 / (1 + math.exp(-float(logits[n, t, k]))), float(maps[n, t, k])
                    cost -= weight * (s * math.log(p) + (1 - s) * math.log(1 - p))
                    weight_sum += weight
        loss = structure_loss(logits, maps, quality)
        assert float(loss) == pytest.approx(cost / weight_sum, rel=1e-5)

    def test_the_truth_is_the_minimum(self):
        maps, quality = random_maps(2).clamp(0.01, 0.99), torch.ones(2, 4)
        best = torch.logit(maps)
        for seed in range(3):
            other = best + 0.3 * torch.randn(best.shape, generator=masks(seed))
            assert structure_loss(other, maps, quality) > structure_loss(best, maps, quality)

    def test_what_was_not_found_teaches_nothing(self):
        logits = torch.randn(2, TOKENS, 4, generator=masks()).requires_grad_()
        quality = torch.tensor([[1.0, 0.8, 0.0, 0.0], [1.0, 0.8, 0.9, 0.9]])
        structure_loss(logits, random_maps(2), quality).backward()
        assert (logits.grad[0, :, DISC:] == 0).all()
        assert (logits.grad[1, :, DISC:].abs().sum(0) > 0).all()
        outside = random_maps(2)[0, :, FOV] == 0
        assert (logits.grad[1, outside, VESSELS] == 0).all()
        assert (logits.grad[1, :, FOV] != 0).all()

    def test_no_weight_gives_zero_with_zero_gradient(self):
        logits = torch.randn(1, TOKENS, 4, generator=masks()).requires_grad_()
        loss = structure_loss(logits, random_maps(1), torch.zeros(1, 4))
        loss.backward()
        assert loss.item() == 0
        assert (logits.grad == 0).all()

    def test_stays_float32_under_autocast(self):
        logits = torch.randn(1, TOKENS, 4, generator=masks())
        maps, quality = random_maps(1), torch.ones(1, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = structure_loss(logits, maps, quality)
        assert low.dtype == torch.float32
        torch.testing.assert_close(low, structure_loss(logits, maps, quality))
