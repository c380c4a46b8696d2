"""The routes beside plain reconstruction: joint, match, structure; scans that are missing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from training_factory import FIELD_ENCODER, TINY_TARGET, make_batch, masks

from train.match import MatchHead, info_nce, masked_mean
from train.pretrain_model import PretrainModel
from train.reconstruction import oct_loss
from train.routes import Ramp, route_table
from train.structure.config import StructureConfig


def _model(table="oct_informed", **changes):
    torch.manual_seed(0)
    settings = {
        "encoder": FIELD_ENCODER,
        "oct_target": TINY_TARGET,
        "routes": route_table(table),
        "whitened": None,
        **changes,
    }
    return PretrainModel(**settings).eval()


def _maps(num=4, *, size_px=96):
    side = size_px // 16
    return torch.rand(num, side * side, 4, generator=masks(9)), torch.ones(num, 4)


def _oct_gradients(model, cfp, scans):
    found = {}
    for route in model.routes:
        oct_input = scans.clone().requires_grad_(True)
        loss = model(cfp, oct_input, scans, masks())[route.name].loss
        (gradient,) = torch.autograd.grad(loss, oct_input, allow_unused=True)
        found[route.name] = 0.0 if gradient is None else float(gradient.abs().max())
    return found


def test_the_joint_baseline_leaks_and_the_method_does_not():
    """The same check on both: it can fail, and on the joint encoder it must."""
    cfp, scans = make_batch(size_px=96)
    assert min(_oct_gradients(_model("joint"), cfp, scans).values()) > 0
    assert _oct_gradients(_model(), cfp, scans)["oct<-cfp"] == 0


def test_the_joint_encoder_shares_the_cfp_encoders_weights():
    model = _model("joint")
    names = set(model.state_dict())
    assert not any(name.startswith("joint_encoder.") for name in names)
    cfp, scans = make_batch(size_px=96)
    loss = model(cfp, scans, scans, masks())["oct<-cfp+oct"].loss
    (gradient,) = torch.autograd.grad(loss, model.cfp_encoder.blocks[0].attn.qkv.weight)
    assert float(gradient.abs().max()) > 0


def test_every_weight_of_every_table_is_trained_or_not_there():
    """The joint arm leaves the OCT encoder's own blocks idle; nothing else may be idle."""
    for table in ("oct_informed", "cfp_only", "joint", "contrastive"):
        model = _model(table).train()
        cfp, scans = make_batch(8, size_px=96)
        model.total_loss(model(cfp, scans, scans, masks())).backward()
        idle = {name for name, p in model.named_parameters() if p.grad is None}
        expected = ("oct_encoder.blocks.", "oct_encoder.norm.") if table == "joint" else ()
        assert all(name.startswith(expected) for name in idle), table
        assert bool(idle) == (table == "joint")


def test_the_match_route_keeps_the_encoders_apart():
    model = _model("contrastive")
    cfp, scans = make_batch(size_px=96)
    seen = []
    handle = model.cfp_encoder.register_forward_hook(lambda *args: seen.append(args[2]))
    for oct_input in (scans, -3 * scans):
        model(cfp, oct_input, scans, masks())
    handle.remove()
    half = len(seen) // 2
    assert all(torch.equal(a, b) for a, b in zip(seen[:half], seen[half:], strict=True))


def test_info_nce_against_a_slow_reference():
    first = torch.nn.functional.normalize(torch.randn(5, 3, generator=masks(1)), dim=-1)
    second = torch.nn.functional.normalize(torch.randn(5, 3, generator=masks(2)), dim=-1)
    scale, total = 4.0, 0.0
    for i in range(5):
        forth = [scale * float(first[i] @ second[j]) for j in range(5)]
        back = [scale * float(first[j] @ second[i]) for j in range(5)]
        for logits in (forth, back):
            total -= logits[i] - math.log(sum(math.exp(z) for z in logits))
    assert float(info_nce(first, second, torch.tensor(scale))) == pytest.approx(
        total / 10, rel=1e-5
    )


def test_info_nce_at_its_ends():
    same = torch.ones(8, 4) / 2
    assert float(info_nce(same, same, torch.tensor(10.0))) == pytest.approx(math.log(8))
    apart = torch.eye(8)
    assert float(info_nce(apart, apart, torch.tensor(50.0))) < 1e-6
    assert float(info_nce(apart, apart.roll(1, 0), torch.tensor(50.0))) > 40


def test_embeddings_are_unit_vectors_and_the_temperature_is_bounded():
    head = MatchHead(16)
    pooled = torch.randn(6, 16, generator=masks(3))
    for embed in (head.embed_cfp, head.embed_oct):
        torch.testing.assert_close(embed(pooled).norm(dim=-1), torch.ones(6))
    with torch.no_grad():
        head.log_scale.fill_(1e3)
    assert torch.isfinite(head(pooled, pooled))


def test_a_temperature_stored_as_a_scalar_is_read():
    head, other = MatchHead(16), MatchHead(16)
    stored = {**head.state_dict(), "log_scale": torch.tensor(1.25)}
    other.load_state_dict(stored)
    assert other.log_scale.tolist() == [1.25]


def test_the_mean_over_present_views():
    tokens = torch.randn(3, 2, 4, 5, generator=masks(4))
    present = torch.tensor([[True, True], [True, False], [False, False]])
    mean = masked_mean(tokens, present)
    torch.testing.assert_close(mean[0], tokens[0].mean((0, 1)))
    torch.testing.assert_close(mean[1], tokens[1, 0].mean(0))
    assert not mean[2].any()
    torch.testing.assert_close(masked_mean(tokens, None), tokens.mean((1, 2)))


@pytest.mark.parametrize("table", ["oct_informed", "joint", "contrastive"])
def test_the_pixels_of_a_missing_scan_change_nothing(table):
    model = _model(table)
    cfp, scans = make_batch(size_px=96)
    present = torch.tensor([[True, True], [True, False], [False, False], [True, True]])
    noise = 10 * torch.randn(scans.shape, generator=masks(7))
    other = torch.where(present[..., None, None], scans, noise)
    first = model(cfp, scans, scans, masks(), present_nv=present)
    second = model(cfp, other, other, masks(), present_nv=present)
    for name, output in first.items():
        assert torch.isfinite(output.loss)
        assert torch.equal(output.loss, second[name].loss), name
    complete = model(cfp, scans, scans, masks())
    for name, output in first.items():
        if name != "cfp<-cfp":
            assert not torch.equal(output.loss, complete[name].loss), name


def test_a_batch_without_any_scan_still_trains_the_photograph():
    for table in ("oct_informed", "contrastive"):
        model = _model(table).train()
        cfp, scans = make_batch(size_px=96)
        absent = torch.zeros(4, 2, dtype=torch.bool)
        outputs = model(cfp, 0 * scans, 0 * scans, masks(), present_nv=absent)
        loss = model.total_loss(outputs)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())
        assert float(model.cfp_encoder.stem[0][0].weight.grad.abs().max()) > 0


def test_the_oct_loss_counts_scans_that_are_there():
    predicted, target = (torch.randn(3, 2, 16, 16, generator=masks(seed)) for seed in (5, 6))
    present = torch.tensor([[True, True], [True, False], [False, False]])
    errors = [(predicted[n, v] - target[n, v]).square().mean() for n, v in ((0, 0), (0, 1), (1, 0))]
    expected = float(torch.stack(errors).mean())
    assert float(oct_loss(predicted, target, None, present)) == pytest.approx(expected, rel=1e-5)
    everything = torch.ones(3, 2, dtype=torch.bool)
    torch.testing.assert_close(
        oct_loss(predicted, target, None, everything), oct_loss(predicted, target, None)
    )


@pytest.mark.parametrize(
    ("switch", "route"),
    [
        ({"hide_weight": 5.0}, "cfp<-cfp"),
        ({"attention": "map"}, "oct<-cfp"),
        ({"attention": "line"}, "oct<-cfp"),
        ({"loss_alpha": 2.0}, "cfp<-cfp"),
    ],
)
def test_each_structural_switch_touches_its_own_route_only(switch, route):
    cfp, scans = make_batch(size_px=96)
    maps, quality = _maps()
    plain = _model()(cfp, scans, scans, masks(), structure_ntk=maps, quality_nk=quality)
    model = _model(structure=StructureConfig(**switch))
    switched = model(cfp, scans, scans, masks(), structure_ntk=maps, quality_nk=quality)
    for name, output in plain.items():
        assert torch.equal(output.loss, switched[name].loss) == (name != route), name


def test_a_switch_without_maps_is_refused():
    cfp, scans = make_batch(size_px=96)
    with pytest.raises(ValueError, match="give structure_ntk"):
        _model(structure=StructureConfig(loss_alpha=1.0))(cfp, scans, scans, masks())


def test_a_ramped_route_weighs_by_the_steps_done():
    routes = route_table("oct_informed")
    ramped = replace(routes[0], ramp=Ramp(initial=0.0, begin=0.5, end=1.0))
    model = _model(routes=(ramped, *routes[1:]))
    cfp, scans = make_batch(size_px=96)
    with torch.no_grad():
        outputs = model(cfp, scans, scans, masks())
    rest = sum(r.weight * float(outputs[r.name].loss) for r in routes[1:])
    own = ramped.weight * float(outputs[ramped.name].loss)
    for done, factor in ((0.0, 0.0), (0.75, 0.5), (1.0, 1.0)):
        total = float(model.total_loss(outputs, done=done))
        assert total == pytest.approx(rest + factor * own, rel=1e-5)
