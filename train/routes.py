"""The route table: what pretraining predicts, and from which sources, as data.

A route is a sentence 'target <- sources'. The claim under study, that a CFP encoder can
carry depth information, holds only if the route oct<-cfp sees no OCT pixel; hence one
source, separate encoders, and decoders whose queries are mask tokens. Tables that break
this rule on purpose are here too: they are what the method is compared with.

    cfp<-cfp        masked photograph, the hidden patches are scored
    oct<-cfp        both B-scans from the photograph alone
    oct<-oct        masked B-scans from what is left of them
    match<-cfp+oct  InfoNCE: which scan belongs to which photograph; two separate encoders
    structure<-cfp  the structural maps of `train.structure` from the photograph's tokens
    T<-cfp+oct      (T = cfp or oct) joint: one encoder over the tokens of both, as MultiMAE
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_runtime.errors import ConfigError

__all__ = ["ROUTE_TABLES", "Ramp", "Route", "route_table", "routes_from_record"]

_MODALITIES = ("cfp", "oct")
_TARGETS = ("cfp", "oct", "match", "structure")


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A linear change of a route's weight during the run.

    Attributes:
        initial: factor of the weight before `begin`.
        begin: share of the steps at which the change begins.
        end: share of the steps from which on the factor is 1.
    """

    initial: float
    begin: float
    end: float

    def __post_init__(self) -> None:
        """Refuse a ramp that runs backwards or outside the run."""
        if self.initial < 0 or not 0 <= self.begin < self.end <= 1:
            raise ConfigError(
                f"ramp from factor {self.initial} at {self.begin} to 1 at {self.end}: the factor "
                "must be >= 0 and 0 <= begin < end <= 1"
            )

    def factor(self, done: float) -> float:
        """The factor when the share `done` of the steps is done."""
        passed = min(1.0, max(0.0, (done - self.begin) / (self.end - self.begin)))
        return self.initial + (1.0 - self.initial) * passed


@dataclass(frozen=True, kw_only=True)
class Route:
    """One thing to predict.

    Attributes:
        target: 'cfp', 'oct', 'match' or 'structure', what is predicted.
        sources: the only modalities whose tokens may be attended to.
        weight: factor of this route's loss.
        mask_ratio: share of the sources hidden from their encoder; 0 = nothing.
        batch_share: share of every batch that takes this route; less than 1 saves time on a
            route that only accompanies.
        ramp: how the weight changes during the run; None = constant.
    """

    target: str
    sources: tuple[str, ...]
    weight: float
    mask_ratio: float = 0.0
    batch_share: float = 1.0
    ramp: Ramp | None = None

    def __post_init__(self) -> None:
        """Refuse unknown words, numbers out of range, and targets that could be copied."""
        if self.target not in _TARGETS:
            raise ConfigError(f"route {self.name}: targets are {', '.join(_TARGETS)}")
        if self.sources not in (("cfp",), ("oct",), ("cfp", "oct")):
            raise ConfigError(f"route {self.name}: sources are cfp, oct, or both in this order")
        if not 0 <= self.mask_ratio < 1 or self.weight <= 0:
            raise ConfigError(
                f"route {self.name}: mask_ratio {self.mask_ratio} must be in [0, 1) and "
                f"weight {self.weight} positive"
            )
        if not 0 < self.batch_share <= 1:
            raise ConfigError(f"route {self.name}: batch_share {self.batch_share} not in (0, 1]")
        self._check_target()

    def _check_target(self) -> None:
        if self.target in self.sources and self.mask_ratio == 0:
            raise ConfigError(f"route {self.name}: an unmasked source would be copied")
        if self.target == "match" and (self.sources != _MODALITIES or self.mask_ratio > 0):
            raise ConfigError(f"route {self.name}: a match needs both sources, unmasked")
        if self.target == "structure" and (self.sources != ("cfp",) or self.mask_ratio > 0):
            raise ConfigError(f"route {self.name}: structure is read from the whole cfp alone")

    @property
    def name(self) -> str:
        """Such as 'oct<-cfp'."""
        return f"{self.target}<-{'+'.join(self.sources)}"

    @property
    def is_joint(self) -> bool:
        """Whether one encoder sees both modalities; breaks the source constraint."""
        return self.target != "match" and len(self.sources) > 1

    def weight_at(self, done: float) -> float:
        """The weight when the share `done` of the steps is done."""
        return self.weight * (1.0 if self.ramp is None else self.ramp.factor(done))


# Same network, steps and eyes. The CFP-only arm spends all its effort on its one route; the
# OCT-informed arm keeps that route as company, because OCT alone forgets what only a
# photograph shows (diabetic retinopathy).
ROUTE_TABLES: dict[str, tuple[Route, ...]] = {
    "oct_informed": (
        Route(target="cfp", sources=("cfp",), mask_ratio=0.5, weight=0.1, batch_share=0.25),
        Route(target="oct", sources=("cfp",), weight=1.0),
        Route(target="oct", sources=("oct",), mask_ratio=0.5, weight=0.25, batch_share=0.25),
    ),
    # What the study measures. First the OCT leads, so that its faint cues are found; then
    # masked CFP reconstruction counts three times as much, so that less is forgotten of what
    # only the photograph shows. Matching is for retrieval.
    "oct_first": (
        Route(
            target="cfp",
            sources=("cfp",),
            mask_ratio=0.5,
            weight=3.0,
            batch_share=0.5,
            ramp=Ramp(initial=1 / 30, begin=0.3, end=0.5),
        ),
        Route(target="oct", sources=("cfp",), weight=1.0),
        Route(target="oct", sources=("oct",), mask_ratio=0.5, weight=0.25, batch_share=0.25),
        Route(target="match", sources=("cfp", "oct"), weight=0.1),
    ),
    # The other end of that trade: the photograph counts three times from the first step on.
    "cfp_first": (
        Route(target="cfp", sources=("cfp",), mask_ratio=0.5, weight=3.0, batch_share=0.5),
        Route(target="oct", sources=("cfp",), weight=1.0),
        Route(target="oct", sources=("oct",), mask_ratio=0.5, weight=0.25, batch_share=0.25),
        Route(target="match", sources=("cfp", "oct"), weight=0.1),
    ),
    "cfp_only": (Route(target="cfp", sources=("cfp",), mask_ratio=0.5, weight=1.0),),
    "joint": (
        Route(target="cfp", sources=("cfp", "oct"), mask_ratio=0.75, weight=0.1, batch_share=0.25),
        Route(target="oct", sources=("cfp", "oct"), mask_ratio=0.75, weight=1.0),
    ),
    "contrastive": (
        Route(target="cfp", sources=("cfp",), mask_ratio=0.5, weight=0.1, batch_share=0.25),
        Route(target="match", sources=("cfp", "oct"), weight=1.0),
    ),
}


def route_table(name: str) -> tuple[Route, ...]:
    """Routes by table name.

    Raises:
        ConfigError: no table has this name.
    """
    if name not in ROUTE_TABLES:
        raise ConfigError(f"route table {name!r} is unknown; choose from {sorted(ROUTE_TABLES)}")
    return ROUTE_TABLES[name]


def routes_from_record(records: list[Mapping[str, Any]]) -> tuple[Route, ...]:
    """Routes again from what `dataclasses.asdict` and JSON made of them."""
    return tuple(
        Route(
            **{
                **record,
                "sources": tuple(record["sources"]),
                "ramp": None if record["ramp"] is None else Ramp(**record["ramp"]),
            }
        )
        for record in records
    )
