"""What the reconstruction model may see, what it scores, and in which precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_factory import (
    ALL_ROUTES,
    FIELD_ENCODER,
    TINY_TARGET,
    make_batch,
    make_model,
    masks,
)

from train.arrays import circle_mask, patchify, unpatchify
from train.masking import expand_mask
from train.oct_targets import WhitenedComponents
from train.pretrain_model import CFP_PATCH_PX
from train.reconstruction import cfp_loss, oct_loss, patch_denormalized, patch_normalized
from train.routes import route_table

CFP_ROUTE = "cfp<-cfp"


def _whitened() -> WhitenedComponents:
    targets = np.random.default_rng(0).normal(size=(20, 2, 16, 16)).astype(np.float32)
    return WhitenedComponents.fit(targets, TINY_TARGET.num_components)


def _tokens_of(model, *inputs):
    """Outputs of one forward pass and every tensor that the CFP encoder returned in it."""
    seen = []
    handle = model.cfp_encoder.register_forward_hook(lambda *args: seen.append(args[2].detach()))
    outputs = model(*inputs)
    handle.remove()
    return outputs, seen


@pytest.mark.parametrize("training", [False, True])
def test_cfp_features_are_bit_identical_whatever_the_oct_is(training):
    cfp, scans = make_batch()
    results = []
    for oct_input in (scans, torch.zeros_like(scans), 100 * scans.flip(0)):
        model = make_model().train(training)
        results.append(_tokens_of(model, cfp, oct_input, scans, masks()))
    (first, first_tokens), *others = results
    assert len(first_tokens) == 2  # masked for cfp<-cfp, whole for oct<-cfp
    for outputs, tokens in others:
        assert all(torch.equal(a, b) for a, b in zip(first_tokens, tokens, strict=True))
        for name in (CFP_ROUTE, "oct<-cfp"):
            assert torch.equal(outputs[name].predicted, first[name].predicted)
            assert torch.equal(outputs[name].loss, first[name].loss)
        for name in ("oct<-oct", "cfp<-oct"):
            assert not torch.equal(outputs[name].predicted, first[name].predicted)


@pytest.mark.parametrize("training", [False, True])
def test_no_gradient_reaches_the_oct_input_through_the_constrained_route(training):
    model = make_model().train(training)
    cfp, scans = make_batch()
    gradients = {}
    for route in ALL_ROUTES:
        oct_input = scans.clone().requires_grad_(True)
        loss = model(cfp, oct_input, scans, masks())[route.name].loss
        (gradient,) = torch.autograd.grad(loss, oct_input, allow_unused=True)
        gradients[route.name] = 0.0 if gradient is None else float(gradient.abs().max())
    assert gradients["oct<-cfp"] == 0
    assert gradients[CFP_ROUTE] == 0
    assert gradients["oct<-oct"] > 0
    assert gradients["cfp<-oct"] > 0


def test_targets_are_detached():
    model = make_model()
    cfp, scans = make_batch()
    target = scans.clone().requires_grad_(True)
    outputs = model(cfp, scans, target, masks())
    assert outputs["oct<-cfp"].loss.requires_grad
    (gradient,) = torch.autograd.grad(outputs["oct<-cfp"].loss, target, allow_unused=True)
    assert gradient is None


def test_hidden_patches_cannot_be_seen():
    model = make_model(encoder=FIELD_ENCODER).eval()
    cfp, scans = make_batch(size_px=96)
    before = model(cfp, scans, scans, masks())[CFP_ROUTE]
    hidden = expand_mask(before.hidden, CFP_PATCH_PX)
    replaced = torch.where(hidden, torch.randn_like(cfp), cfp)
    after = model(replaced, scans, scans, masks())[CFP_ROUTE]
    assert torch.equal(after.hidden, before.hidden)
    assert torch.equal(after.predicted, before.predicted)
    assert not torch.equal(after.loss, before.loss)  # they are what is scored
    shown = torch.where(hidden, cfp, torch.randn_like(cfp))
    assert not torch.equal(
        model(shown, scans, scans, masks())[CFP_ROUTE].predicted, before.predicted
    )


def test_hidden_counts_are_exact_and_inside_the_field():
    model = make_model(encoder=FIELD_ENCODER).eval()
    cfp, scans = make_batch(size_px=96)
    outputs = model(cfp, scans, scans, masks())
    assert outputs[CFP_ROUTE].hidden.sum(1).tolist() == [16] * 4
    assert not (outputs[CFP_ROUTE].hidden & ~model.in_field).any()
    assert len(torch.unique(outputs[CFP_ROUTE].hidden, dim=0)) == 4
    assert outputs["oct<-cfp"].hidden is None


def test_half_of_the_oct_patches_of_each_scan_are_hidden():
    model = make_model().eval()
    seen = []
    model.oct_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    cfp, scans = make_batch()
    model(cfp, scans, scans, masks())
    zeros = [(patchify(x.flatten(0, 1)[:, None], 8) == 0).all(-1).sum(1).tolist() for x in seen]
    assert zeros == [[2] * 8, [0] * 8]  # oct<-oct masked by half, cfp<-oct sees everything


def test_pixels_outside_the_field_never_change_the_cfp_loss():
    """With the prediction held, as a target; and by gradient, as a prediction."""
    model = make_model(encoder=FIELD_ENCODER).eval()
    cfp, scans = make_batch(size_px=96)
    output = model(cfp, scans, scans, masks())[CFP_ROUTE]
    predicted = patchify(output.predicted.detach(), CFP_PATCH_PX).requires_grad_(True)
    outside = ~circle_mask(96)
    assert float(outside.float().mean()) > 0.2

    for scored in (output.hidden, model.in_field.expand(4, -1)):

        def loss_of(picture, scored=scored):
            return cfp_loss(predicted, patchify(picture, CFP_PATCH_PX), model.inside, scored)

        loss = loss_of(cfp)
        noise = 50 * torch.randn_like(cfp)
        assert torch.equal(loss_of(torch.where(outside, noise, cfp)), loss)
        assert not torch.equal(loss_of(torch.where(outside, cfp, noise)), loss)
        (gradient,) = torch.autograd.grad(loss, predicted)
        assert torch.equal(gradient.abs().amax(-1) > 0, scored)
        assert not (unpatchify(gradient, CFP_PATCH_PX, 3) * outside).any()


def test_the_cfp_loss_against_a_slow_reference():
    model = make_model(encoder=FIELD_ENCODER).eval()
    cfp, scans = make_batch(size_px=96)
    with torch.no_grad():
        output = model(cfp, scans, scans, masks())[CFP_ROUTE]
    circle = circle_mask(96)
    errors, num_patches = [], 0
    for n, t in output.hidden.nonzero().tolist():
        rows, cols = (slice(16 * i, 16 * i + 16) for i in divmod(t, 6))
        inside = circle[rows, cols]
        patch = cfp[n, :, rows, cols].double()[:, inside]
        mean = patch.mean(1, keepdim=True)
        spread = (patch.var(1, keepdim=True, unbiased=False) + 1e-3).sqrt()
        guess = output.predicted[n, :, rows, cols].detach().double()[:, inside]
        errors.extend(((guess - (patch - mean) / spread) ** 2).flatten().tolist())
        num_patches += 1
    assert num_patches == 64
    assert float(output.loss) == pytest.approx(np.mean(errors), rel=1e-5)


def test_the_oct_loss_is_a_share_of_pixels_beside_the_whitened_components():
    whitened = _whitened()
    model = make_model(whitened=whitened).eval()
    cfp, scans = make_batch()
    with torch.no_grad():
        output = model(cfp, scans, scans, masks())["oct<-cfp"]
        plain = make_model().eval()(cfp, scans, scans, masks())["oct<-cfp"]
    pixels = float(((output.predicted - scans) ** 2).mean())
    expected = 0.25 * pixels + float(whitened(output.predicted, scans))
    assert float(output.loss) == pytest.approx(expected, rel=1e-5)
    assert float(plain.loss) == pytest.approx(float(((plain.predicted - scans) ** 2).mean()))


def test_oct_predictions_lie_where_their_queries_are():
    model = make_model().eval()
    cfp, scans = make_batch()
    decoder = model.decoders["oct<-cfp"]
    before = model(cfp, scans, scans, masks())["oct<-cfp"].predicted
    with torch.no_grad():
        decoder.query[0, 5] = torch.randn(16)  # view 1, patch 1: top right
    changed = model(cfp, scans, scans, masks())["oct<-cfp"].predicted != before
    expected = torch.zeros_like(changed)
    expected[:, 1, :8, 8:] = True
    assert torch.equal(changed & ~expected, torch.zeros_like(changed))
    assert changed[:, 1, :8, 8:].float().mean() > 0.9


def test_losses_are_float32_under_bfloat16_autocast():
    model = make_model(whitened=_whitened()).eval()
    cfp, scans = make_batch()
    dtypes = []
    model.cfp_encoder.stem[0][0].register_forward_hook(lambda *args: dtypes.append(args[2].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(cfp, scans, scans, masks())
    assert set(dtypes) == {torch.bfloat16}  # the switch is on
    for output in outputs.values():
        assert output.loss.dtype == torch.float32
        assert output.predicted.dtype == torch.float32
    scored = oct_loss(outputs["oct<-cfp"].predicted, scans, model.whitened)
    torch.testing.assert_close(scored, outputs["oct<-cfp"].loss, rtol=1e-5, atol=0)
    assert model.total_loss(outputs).dtype == torch.float32


def test_the_total_is_weighted_by_the_route_table():
    model = make_model()
    cfp, scans = make_batch()
    with torch.no_grad():
        outputs = model(cfp, scans, scans, masks())
    expected = sum(route.weight * float(outputs[route.name].loss) for route in ALL_ROUTES)
    assert float(model.total_loss(outputs)) == pytest.approx(expected, rel=1e-6)


def test_both_arms_start_from_the_same_cfp_encoder():
    informed = make_model(route_table("oct_informed"), seed=3).cfp_encoder.state_dict()
    control = make_model(route_table("cfp_only"), seed=3)
    assert not hasattr(control, "oct_encoder")
    for name, tensor in control.cfp_encoder.state_dict().items():
        assert torch.equal(tensor, informed[name]), name


def test_patch_normalisation_by_colour_and_back():
    patches = torch.randn(2, 4, 16 * 16 * 3) * 0.5 + 1
    normal = patch_normalized(patches)
    colours = normal.reshape(2, 4, 256, 3)
    torch.testing.assert_close(colours.mean(2), torch.zeros(2, 4, 3), atol=1e-5, rtol=0)
    assert float((colours.std(2, unbiased=False) - 1).abs().max()) < 0.01
    torch.testing.assert_close(patch_denormalized(normal, patches), patches, atol=1e-5, rtol=0)


def test_a_flat_patch_does_not_turn_noise_into_signal():
    flat = torch.full((1, 1, 768), 0.7)
    assert float(patch_normalized(flat).abs().max()) < 1e-3
    noisy = flat + torch.randn(1, 1, 768) / 128  # half a grey level
    assert float(patch_normalized(noisy).std()) < 0.3


def test_a_route_trains_on_its_share_of_the_batch_and_is_scored_on_all_of_it():
    model = make_model()
    cfp, scans = make_batch(8)
    for training in (True, False):
        model.train(training)
        outputs = model(cfp, scans, scans, masks())
        for route in ALL_ROUTES:
            expected = max(2, round(8 * route.batch_share)) if training else 8
            assert len(outputs[route.name].predicted) == expected, route.name
