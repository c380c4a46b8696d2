"""The route table: what may be predicted from what."""

from __future__ import annotations

import pytest

from edge_runtime.errors import ConfigError
from train.routes import ROUTE_TABLES, Route, route_table


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
    with pytest.raises(ConfigError, match=r"'joint' is unknown.*cfp_only.*oct_informed"):
        route_table("joint")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "faf"}, "faf<-cfp: modalities are cfp, oct"),
        ({"source": "faf"}, "oct<-faf: modalities are cfp, oct"),
        ({"mask_ratio": 1.0}, r"mask_ratio 1.0 must be in \[0, 1\)"),
        ({"mask_ratio": -0.1}, "mask_ratio -0.1"),
        ({"weight": 0.0}, "weight 0.0 positive"),
        ({"batch_share": 0.0}, r"batch_share 0.0 not in \(0, 1\]"),
        ({"batch_share": 1.5}, "batch_share 1.5"),
        ({"target": "cfp", "mask_ratio": 0.0}, "cfp<-cfp: an unmasked source would be copied"),
    ],
)
def test_senseless_routes_are_refused(changes, message):
    good = {"target": "oct", "source": "cfp", "mask_ratio": 0.5, "weight": 1.0}
    assert Route(**good).name == "oct<-cfp"
    with pytest.raises(ConfigError, match=message):
        Route(**{**good, **changes})


def test_every_table_has_distinct_routes():
    for name, routes in ROUTE_TABLES.items():
        assert len({r.name for r in routes}) == len(routes), name
