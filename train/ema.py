"""A running average of weights over the steps (EMA): often better than the last step's.

For fine-tuning and distillation, not for masked pretraining. Floating-point weights are
averaged; buffers (BatchNorm's statistics and counters) are copied, because an average of
them would belong to no network.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from edge_runtime.errors import ConfigError

__all__ = ["EmaWeights"]

_Module = TypeVar("_Module", bound=nn.Module)


class EmaWeights:
    """The average of one module's weights.

    After t updates with weights w_1 ... w_t the average is a_t = d_t a_{t-1} + (1 - d_t) w_t,
    with d_t = min(decay, t / (t + 9)): the first steps, far from where training ends, are
    forgotten soon.

    Attributes:
        decay: the largest d_t, in [0, 1); 0 keeps the last weights.
        num_updates: t.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start at the module's weights as they are.

        Raises:
            ConfigError: `decay` is out of range.
        """
        if not 0 <= decay < 1:
            raise ConfigError(f"ema_decay is {decay}; it must be in [0, 1)")
        self.decay, self.num_updates = decay, 0
        self._average = {k: v.detach().clone() for k, v in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the weights after a step."""
        self.num_updates += 1
        kept = min(self.decay, self.num_updates / (self.num_updates + 9))
        for name, weight in module.named_parameters():
            self._average[name].lerp_(weight, 1 - kept)

    @torch.no_grad()
    def copy_to(self, module: _Module) -> _Module:
        """Put the average into the module's weights; its buffers are those it has."""
        for name, weight in module.named_parameters():
            weight.copy_(self._average[name])
        return module
