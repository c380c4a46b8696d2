"""The route table: which target is reconstructed from which source, as data.

A route is a sentence 'target <- source'. The claim under study, that a CFP encoder can
carry depth information, holds only if the route oct<-cfp sees no OCT pixel; hence one
source a route, separate encoders, and decoders whose queries are mask tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.errors import ConfigError

__all__ = ["ROUTE_TABLES", "Route", "route_table"]

_MODALITIES = ("cfp", "oct")


@dataclass(frozen=True, kw_only=True)
class Route:
    """One reconstruction.

    Attributes:
        target: 'cfp' or 'oct', what is predicted.
        source: 'cfp' or 'oct', the only tokens the decoder may attend to.
        mask_ratio: share of the source hidden from its encoder; 0 = the whole source.
        weight: factor of this route's loss.
        batch_share: share of every batch that takes this route; less than 1 saves time on a
            route that only accompanies.
    """

    target: str
    source: str
    mask_ratio: float
    weight: float
    batch_share: float = 1.0

    def __post_init__(self) -> None:
        """Refuse unknown modalities and routes that would predict what they can see."""
        if self.target not in _MODALITIES or self.source not in _MODALITIES:
            raise ConfigError(f"route {self.name}: modalities are {', '.join(_MODALITIES)}")
        if not 0 <= self.mask_ratio < 1 or self.weight <= 0:
            raise ConfigError(
                f"route {self.name}: mask_ratio {self.mask_ratio} must be in [0, 1) and "
                f"weight {self.weight} positive"
            )
        if not 0 < self.batch_share <= 1:
            raise ConfigError(f"route {self.name}: batch_share {self.batch_share} not in (0, 1]")
        if self.target == self.source and self.mask_ratio == 0:
            raise ConfigError(f"route {self.name}: an unmasked source would be copied")

    @property
    def name(self) -> str:
        """Such as 'oct<-cfp'."""
        return f"{self.target}<-{self.source}"


# Same network, steps and eyes. The CFP-only arm spends all its effort on its one route; the
# OCT-informed arm keeps that route as company, because OCT alone forgets what only a
# photograph shows (diabetic retinopathy).
ROUTE_TABLES: dict[str, tuple[Route, ...]] = {
    "oct_informed": (
        Route(target="cfp", source="cfp", mask_ratio=0.5, weight=0.1, batch_share=0.25),
        Route(target="oct", source="cfp", mask_ratio=0.0, weight=1.0),
        Route(target="oct", source="oct", mask_ratio=0.5, weight=0.25, batch_share=0.25),
    ),
    "cfp_only": (Route(target="cfp", source="cfp", mask_ratio=0.5, weight=1.0),),
}


def route_table(name: str) -> tuple[Route, ...]:
    """Routes by table name.

    Raises:
        ConfigError: no table has this name.
    """
    if name not in ROUTE_TABLES:
        raise ConfigError(f"route table {name!r} is unknown; choose from {sorted(ROUTE_TABLES)}")
    return ROUTE_TABLES[name]
