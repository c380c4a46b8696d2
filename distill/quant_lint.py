"""Name the blocks of a backbone that INT8 is known to treat badly, by looking at the built network.

The network is built without memory for weights. Layers are found by what they are; operators
that a forward pass calls without a layer of their own are found by letting one picture through.
`distill` refuses a backbone with a finding of weight 'refuse' unless told otherwise aloud.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from distill.backbone import build_backbone
from distill.quant_rules import RULES, Rule
from distill.student import StudentConfig
from edge_runtime.errors import ConfigError

__all__ = ["Finding", "lint_backbone", "refuse_bad_backbone"]

_LOGGER = logging.getLogger(__name__)
_PROBE_PX = 64
# Operators by the rule they break, for forward passes that call functions instead of layers.
_OPERATORS = {
    "aten::silu": "silu",
    "aten::gelu": "gelu",
    "aten::hardswish": "hard_swish",
    "aten::hardsigmoid": "sigmoid_gate",
    "aten::sigmoid": "sigmoid_gate",
    "aten::native_layer_norm": "layer_norm",
    "aten::native_group_norm": "layer_norm",
    "aten::_softmax": "attention",
}
_GATE_NAMES = (
    "SqueezeExcite",
    "SEModule",
    "EffectiveSE",
    "EcaModule",
    "GatherExcite",
    "CbamModule",
)
_AFFINE_NAMES = ("LearnableAffineBlock", "LayerScale")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One rule that a backbone breaks.

    Attributes:
        rule: name of the rule.
        weight: 'refuse' or 'note'.
        num_layers: how many layers break it; 0 = a function of the forward pass.
        first: name of the first of them.
        reason: what INT8 does to it, with where that was seen.
        remedy: what to do.
    """

    rule: str
    weight: str
    num_layers: int
    first: str
    reason: str
    remedy: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def lint_backbone(config: StudentConfig) -> tuple[Finding, ...]:
    """Every rule that a backbone breaks, the grave ones first.

    Raises:
        ConfigError: the backbone cannot be built.
    """
    with torch.device("meta"):
        backbone = build_backbone(config).eval()
    layers: dict[str, list[str]] = {}
    for name, module in [(n, m) for n, m in backbone.named_modules() if n]:
        for rule, matches in _CHECKS.items():
            if matches(module):
                layers.setdefault(rule, []).append(name)
    for rule in _called_functions(backbone):
        layers.setdefault(rule, [])
    found = [_finding(RULES[rule], names) for rule, names in layers.items()]
    return tuple(sorted(found, key=lambda one: (one.weight != "refuse", one.rule)))


def refuse_bad_backbone(config: StudentConfig, *, allowed: bool) -> tuple[Finding, ...]:
    """The findings; refuses grave ones unless they are allowed.

    Raises:
        ConfigError: a finding says 'refuse' and `allowed` is False.
    """
    findings = lint_backbone(config)
    grave = [f"{one.rule} ({one.num_layers} layers)" for one in findings if one.weight == "refuse"]
    if grave and not allowed:
        raise ConfigError(
            f"'{config.arch}' has blocks that INT8 treats badly: {', '.join(grave)}; see "
            f"`edge-screen quant-lint {config.arch}`, choose another backbone, or allow it with "
            "--allow-quant-lint and let the INT8 gate decide"
        )
    if grave:
        _LOGGER.warning(
            "'%s' is taught although quant-lint refuses it: %s", config.arch, ", ".join(grave)
        )
    return findings


def _finding(rule: Rule, names: list[str]) -> Finding:
    return Finding(
        rule=rule.name,
        weight=rule.weight,
        num_layers=len(names),
        first=names[0] if names else "a function of the forward pass",
        reason=rule.reason,
        remedy=rule.remedy,
    )


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Collects the rules that executed operators break."""

    def __init__(self, rules: set[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rules = rules

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0].removesuffix("_")
        if name in _OPERATORS:
            self.rules.add(_OPERATORS[name])
        return func(*args, **(kwargs or {}))


def _called_functions(backbone: nn.Module) -> set[str]:
    """Rules broken by what a forward pass executes, as far as it gets with a small picture."""
    rules: set[str] = set()
    picture = torch.zeros(1, 3, _PROBE_PX, _PROBE_PX, device="meta")
    # Transformers refuse it at once: they take one size only. Their layers were found without.
    with torch.no_grad(), _Watch(rules), suppress(AssertionError, RuntimeError):
        backbone(picture)
    return rules


def _named(*words: str) -> Callable[[nn.Module], bool]:
    return lambda module: any(word in type(module).__name__ for word in words)


def _is(*kinds: type[nn.Module]) -> Callable[[nn.Module], bool]:
    return lambda module: isinstance(module, kinds)


def _is_attention(module: nn.Module) -> bool:
    name = type(module).__name__
    return isinstance(module, nn.MultiheadAttention) or "Attention" in name or "Attn" in name


def _is_branched(module: nn.Module) -> bool:
    """A block of parallel branches, each with its norm, that are merged for inference."""
    mergeable = any(callable(getattr(module, n, None)) for n in ("reparameterize", "fuse"))
    return mergeable and sum(isinstance(m, nn.BatchNorm2d) for m in module.modules()) > 1


def _groups(module: nn.Module) -> tuple[int, int]:
    """Input and output channels a group of a grouped convolution; (0, 0) of any other layer."""
    if not isinstance(module, nn.Conv2d) or module.groups == 1:
        return 0, 0
    return module.in_channels // module.groups, module.out_channels // module.groups


def _is_depthwise(module: nn.Module) -> bool:
    return _groups(module) == (1, 1)


def _is_multiplied(module: nn.Module) -> bool:
    inputs, outputs = _groups(module)
    return inputs == 1 and outputs > 1


def _is_grouped(module: nn.Module) -> bool:
    return _groups(module)[0] > 1


def _is_narrow(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.out_channels % 8 > 0


_CHECKS: dict[str, Callable[[nn.Module], bool]] = {
    "squeeze_excite": _named(*_GATE_NAMES),
    "silu": _is(nn.SiLU),
    "gelu": lambda module: isinstance(module, nn.GELU) or "GELU" in type(module).__name__,
    "hard_swish": _is(nn.Hardswish),
    "sigmoid_gate": _is(nn.Sigmoid, nn.Hardsigmoid),
    "layer_norm": lambda m: isinstance(m, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)),
    "attention": _is_attention,
    "reparameterized": _is_branched,
    "learnable_affine": _named(*_AFFINE_NAMES),
    "depthwise_multiplier": _is_multiplied,
    "grouped": _is_grouped,
    "depthwise": _is_depthwise,
    "narrow": _is_narrow,
    "pooling": _is(nn.MaxPool2d, nn.AvgPool2d),
}
