"""The route table: what may be predicted from what."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from edge_runtime.errors import ConfigError
from train.routes import ROUTE_TABLES, Ramp, Route, route_table, routes_from_record


def test_the_control_arm_has_the_cfp_route_alone_at_full_strength():
    """The control must not be weak: the same mask ratio, all of the batch, full weight."""
    informed, (control,) = route_table("oct_informed"), route_table("cfp_only")
    assert {r.name for r in informed} == {"cfp<-cfp", "oct<-cfp", "oct<-oct"}
    (shared,) = (r for r in informed if r.name == control.name)
    assert control.name == "cfp<-cfp"
    assert control.mask_ratio == shared.mask_ratio
    assert control.weight >= shared.weight
    assert control.batch_share == 1


def test_the_route_under_study_sees_the_whole_photograph():
    (route,) = (r for r in route_table("oct_informed") if r.name == "oct<-cfp")
    assert route.mask_ratio == 0


def test_an_unknown_table_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match=r"'best' is unknown.*cfp_only.*joint.*oct_informed"):
        route_table("best")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "faf"}, "faf<-cfp: targets are cfp, oct, match"),
        ({"sources": ("faf",)}, "oct<-faf: sources are cfp, oct, or both"),
        ({"sources": ("oct", "cfp")}, "in this order"),
        ({"sources": ()}, "sources are cfp, oct, or both"),
        ({"mask_ratio": 1.0}, r"mask_ratio 1.0 must be in \[0, 1\)"),
        ({"mask_ratio": -0.1}, "mask_ratio -0.1"),
        ({"weight": 0.0}, "weight 0.0 positive"),
        ({"batch_share": 0.0}, r"batch_share 0.0 not in \(0, 1\]"),
        ({"batch_share": 1.5}, "batch_share 1.5"),
        ({"target": "cfp", "mask_ratio": 0.0}, "cfp<-cfp: an unmasked source would be copied"),
        ({"sources": ("cfp", "oct"), "mask_ratio": 0.0}, "oct<-cfp.oct: an unmasked source"),
        ({"target": "match"}, "match<-cfp: a match needs both sources, unmasked"),
        ({"target": "match", "sources": ("cfp", "oct")}, "needs both sources, unmasked"),
        ({"target": "structure"}, "structure is read from the whole cfp alone"),
    ],
)
def test_senseless_routes_are_refused(changes, message):
    good = {"target": "oct", "sources": ("cfp",), "mask_ratio": 0.5, "weight": 1.0}
    assert Route(**good).name == "oct<-cfp"
    with pytest.raises(ConfigError, match=message):
        Route(**{**good, **changes})


def test_every_table_has_distinct_routes():
    for name, routes in ROUTE_TABLES.items():
        assert len({r.name for r in routes}) == len(routes), name


def test_only_the_joint_table_breaks_the_source_constraint():
    joint = {name for name, routes in ROUTE_TABLES.items() if any(r.is_joint for r in routes)}
    assert joint == {"joint"}
    assert not any(r.is_joint for r in route_table("contrastive"))  # two separate encoders


def test_a_ramp_is_a_straight_line_between_two_plateaus():
    ramp = Ramp(initial=0.2, begin=0.25, end=0.75)
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    assert [ramp.factor(done) for done in shares] == pytest.approx([0.2, 0.2, 0.6, 1.0, 1.0])
    route = Route(target="oct", sources=("cfp",), weight=2.0, ramp=ramp)
    assert route.weight_at(0.5) == pytest.approx(1.2)
    assert Route(target="oct", sources=("cfp",), weight=2.0).weight_at(0.0) == 2.0


@pytest.mark.parametrize(
    "changes", [{"initial": -0.1}, {"begin": 0.8}, {"begin": -0.1}, {"end": 1.1}, {"end": 0.2}]
)
def test_senseless_ramps_are_refused(changes):
    with pytest.raises(ConfigError, match="begin < end"):
        Ramp(**{"initial": 0.1, "begin": 0.2, "end": 0.7, **changes})


def test_routes_come_back_from_json():
    ramped = Route(
        target="oct", sources=("cfp",), weight=1.0, ramp=Ramp(initial=0, begin=0, end=0.1)
    )
    for routes in (*ROUTE_TABLES.values(), (ramped,)):
        stored = json.loads(json.dumps([asdict(route) for route in routes]))
        assert routes_from_record(stored) == routes
