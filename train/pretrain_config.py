"""All settings of a pretraining arm: validated, saved whole, read back from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.errors import ConfigError
from train.encoder import EncoderConfig
from train.oct_targets import OctTargetConfig
from train.routes import ROUTE_TABLES, Route, routes_from_record
from train.structure.config import StructureConfig

__all__ = ["PretrainConfig", "config_from_record"]


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """All settings of one pretraining arm; saved whole beside its weights.

    Attributes:
        routes: what is predicted from what; `train.routes.route_table` has named ones.
        num_steps: optimiser steps.
        batch_size: eyes a step.
        learning_rate: peak of the schedule.
        weight_decay: AdamW's.
        shuffle_oct: pair every CFP with another eye's OCT (the control that must not help).
        num_paired: eyes whose OCT is used, drawn by `seed`; the others take part with their
            CFP alone. 0 = every eye that has one.
        bfloat16: run convolutions and matrices in bfloat16; losses stay float32.
        seed: draws weights, batches and masks.
        encoder: shape of the CFP encoder.
        decoder_depth: cross-attention blocks of each decoder.
        oct_target: what the OCT routes predict.
        structure: the four structural switches, all off by default.
    """

    routes: tuple[Route, ...] = ROUTE_TABLES["oct_informed"]
    num_steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 1.2e-3
    weight_decay: float = 0.05
    shuffle_oct: bool = False
    num_paired: int = 0
    bfloat16: bool = True
    seed: int = 0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder_depth: int = 1
    oct_target: OctTargetConfig = field(default_factory=OctTargetConfig)
    structure: StructureConfig = field(default_factory=StructureConfig)

    def __post_init__(self) -> None:
        """Refuse settings out of range, and two routes of one name."""
        names = [route.name for route in self.routes]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"routes are {names}; give at least one, each name once")
        if self.num_steps < 1 or self.batch_size < 2:
            raise ConfigError(
                f"num_steps {self.num_steps} must be >= 1 and batch_size {self.batch_size} >= 2"
            )
        if not 0 < self.learning_rate < 1:
            raise ConfigError(f"learning_rate {self.learning_rate} must be in (0, 1)")
        if self.decoder_depth < 1 or self.num_paired < 0:
            raise ConfigError(
                f"decoder_depth {self.decoder_depth} must be >= 1 and num_paired "
                f"{self.num_paired} cannot be negative"
            )

    @property
    def all_routes(self) -> tuple[Route, ...]:
        """The routes, and the structure target where its switch is on."""
        weight = self.structure.target_weight
        if weight == 0:
            return self.routes
        return (*self.routes, Route(target="structure", sources=("cfp",), weight=weight))

    @property
    def uses_oct(self) -> bool:
        """Whether any route needs the B-scans."""
        return any(route.target == "oct" or "oct" in route.sources for route in self.routes)


def config_from_record(record: Mapping[str, Any]) -> PretrainConfig:
    """The settings again from a checkpoint's config.json.

    Raises:
        ConfigError, KeyError, TypeError: a setting is missing, unknown or out of range.
    """
    return PretrainConfig(
        **{
            **record,
            "routes": routes_from_record(record["routes"]),
            "encoder": EncoderConfig(**record["encoder"]),
            "oct_target": OctTargetConfig(**record["oct_target"]),
            "structure": StructureConfig(**record["structure"]),
        }
    )
