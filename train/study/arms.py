"""The arms of the study and its ablations, as settings: what differs is what is named.

All arms share the encoder, the number of steps and the eyes. `cfp_only` gets larger batches,
so that it costs at least as much computing as the arm it is compared with, and the learning rate
that suits it: a control that was not tuned proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from edge_runtime.errors import ConfigError
from train.oct_targets import OctTargetConfig
from train.pretrain_config import PretrainConfig
from train.routes import Route, route_table
from train.structure.config import StructureConfig

__all__ = [
    "ABLATIONS",
    "ARMS",
    "BALANCED",
    "MAIN_ARMS",
    "REFERENCE",
    "UNTRAINED",
    "ControlSettings",
    "ablation_config",
    "arm_config",
]

REFERENCE = "oct_informed"
UNTRAINED = "no_pretraining"
BALANCED = "cfp_weighted"
# What the claim and its trade-off compare.
MAIN_ARMS = (REFERENCE, BALANCED, "cfp_only", UNTRAINED)
_TABLES = {BALANCED: "cfp_first", "joint": "joint", "contrastive": "contrastive"}
_Change = Callable[[PretrainConfig], PretrainConfig]

# What each arm is, in the words of the report.
ARMS: Mapping[str, str] = {
    REFERENCE: "the method: OCT from the CFP alone, masked CFP beside it",
    BALANCED: "the method without its schedule: masked CFP counts three times throughout",
    "cfp_only": "masked CFP alone, its own learning rate, larger batches for the same computing",
    "shuffled_oct": "the method with every CFP paired with another patient's OCT",
    "joint": "one encoder over masked CFP and OCT tokens, as MultiMAE",
    "contrastive": "CFP and OCT matched by InfoNCE, masked CFP beside it, as EyeCLIP",
    UNTRAINED: "random weights, BatchNorm settled like the others",
}


@dataclass(frozen=True, kw_only=True)
class ControlSettings:
    """What the CFP-only arm has of its own.

    Attributes:
        batch_size: eyes a step, so that the arm computes at least as much as the method.
        learning_rate: peak of its schedule, chosen for this arm.
    """

    batch_size: int
    learning_rate: float


def arm_config(
    name: str, base: PretrainConfig, *, control: ControlSettings
) -> PretrainConfig | None:
    """Settings of one arm.

    Args:
        name: a key of `ARMS`.
        base: encoder, steps, batch, seed; its routes are those of the method.
        control: what `cfp_only` has of its own.

    Returns:
        None for the untrained encoder.

    Raises:
        ConfigError: there is no arm of that name.
    """
    if name not in ARMS:
        raise ConfigError(f"arm {name!r} is unknown; choose from {', '.join(ARMS)}")
    if name == UNTRAINED:
        return None
    if name == "cfp_only":
        return replace(
            base,
            routes=route_table(name),
            batch_size=control.batch_size,
            learning_rate=control.learning_rate,
        )
    if name == "shuffled_oct":
        return replace(base, shuffle_oct=True)
    return base if name == REFERENCE else replace(base, routes=route_table(_TABLES[name]))


def _routes(change: Callable[[Route], Route | None]) -> _Change:
    def apply(base: PretrainConfig) -> PretrainConfig:
        changed = (change(route) for route in base.routes)
        return replace(base, routes=tuple(one for one in changed if one is not None))

    return apply


def _without(name: str) -> _Change:
    return _routes(lambda route: None if route.name == name else route)


def _mask_ratio(ratio: float) -> _Change:
    def change(route: Route) -> Route:
        return replace(route, mask_ratio=ratio) if route.name == "cfp<-cfp" else route

    return _routes(change)


def _structure(**switch: object) -> _Change:
    return lambda base: replace(base, structure=StructureConfig(**switch))  # type: ignore[arg-type]


def _target(**changes: object) -> _Change:
    return lambda base: replace(base, oct_target=OctTargetConfig(**changes))  # type: ignore[arg-type]


# One change each; 'as the method' is run with them, at the same number of steps.
ABLATIONS: Mapping[str, _Change] = {
    "as the method": lambda base: base,
    "route cfp<-cfp left out": _without("cfp<-cfp"),
    "route oct<-oct left out": _without("oct<-oct"),
    "mask ratio of cfp<-cfp 0.75": _mask_ratio(0.75),
    "OCT target raw pixels, no whitening": _target(kind="raw", num_components=0),
    "OCT target flattened, no whitening": _target(num_components=0),
    "structure: sampling (macula and disc stay visible)": _structure(hide_weight=1 / 1.5),
    "structure: attention bias along the scan line": _structure(attention="line"),
    "structure: loss weight": _structure(loss_alpha=1.0),
    "structure: auxiliary target": _structure(target_weight=0.1),
    "decoder depth 2": lambda base: replace(base, decoder_depth=2),
    "OCT of 1,000 eyes": lambda base: replace(base, num_paired=1000),
}


def ablation_config(name: str, base: PretrainConfig) -> PretrainConfig:
    """Settings of one ablation.

    Raises:
        ConfigError: there is no ablation of that name.
    """
    if name not in ABLATIONS:
        raise ConfigError(f"ablation {name!r} is unknown; choose from {', '.join(ABLATIONS)}")
    return ABLATIONS[name](base)
