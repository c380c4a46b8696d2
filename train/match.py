"""Matching photographs with scans: two projections and the InfoNCE loss between them.

The CFP encoder and the OCT encoder stay apart; only their pooled outputs are compared
(as CLIP, arXiv 2103.00020). As the leading route it is the contrastive baseline; with a
small weight it gives the method an honest retrieval head.

Legend: N images, T tokens, D encoder width, E embedding width.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

__all__ = ["MatchHead", "info_nce", "masked_mean"]

_EMBEDDING = 64
_INITIAL_TEMPERATURE = 0.1
_MAX_INVERSE_TEMPERATURE = 100.0  # CLIP's bound, against collapse to one negative


def info_nce(
    first_ne: torch.Tensor, second_ne: torch.Tensor, inverse_temperature: torch.Tensor
) -> torch.Tensor:
    """Symmetric InfoNCE: -1/2N sum_i [log softmax_j(s_ij)_i + log softmax_j(s_ji)_i].

    With s_ij = inverse_temperature * <first_i, second_j> of unit vectors (van den Oord et al.,
    arXiv 1807.03748; symmetric form of CLIP). Float32.

    Args:
        first_ne: (N, E) unit vectors.
        second_ne: (N, E) unit vectors; row i belongs to row i.
        inverse_temperature: positive, one number.

    Returns:
        Scalar; log N where nothing can be told apart.
    """
    logits = inverse_temperature.float() * (first_ne.float() @ second_ne.float().T)
    own = torch.arange(len(logits), device=logits.device)
    forth, back = functional.cross_entropy(logits, own), functional.cross_entropy(logits.T, own)
    return (forth + back) / 2


def masked_mean(tokens_nvtd: torch.Tensor, present_nv: torch.Tensor | None) -> torch.Tensor:
    """(N, V, T, D) -> (N, D), the mean over the tokens of the views that are there.

    An eye without any view gives zeros.
    """
    by_view = tokens_nvtd.float().mean(2)
    if present_nv is None:
        return by_view.mean(1)
    present = present_nv.to(by_view.dtype)[..., None]
    return (by_view * present).sum(1) / present.sum(1).clamp(min=1)


def _reshape_scale(
    _: nn.Module, tensors: dict[str, torch.Tensor], prefix: str, *_rest: object
) -> None:
    name = f"{prefix}log_scale"
    if name in tensors:
        tensors[name] = tensors[name].reshape(1)


class MatchHead(nn.Module):
    """Linear projections of both pooled encoders to unit vectors, and a learned temperature."""

    def __init__(self, width: int) -> None:
        """Build for encoders of token width `width`."""
        super().__init__()
        self.cfp = nn.Linear(width, _EMBEDDING)
        self.oct = nn.Linear(width, _EMBEDDING)
        # (1,): FSDP cannot shard a scalar. Checkpoints of before hold one.
        self.log_scale = nn.Parameter(torch.tensor([math.log(1 / _INITIAL_TEMPERATURE)]))
        self.register_load_state_dict_pre_hook(_reshape_scale)  # type: ignore[no-untyped-call]

    def embed_cfp(self, pooled_nd: torch.Tensor) -> torch.Tensor:
        """(N, D) mean of the CFP's tokens -> (N, E) unit vectors, float32."""
        return functional.normalize(self.cfp(pooled_nd).float(), dim=-1)

    def embed_oct(self, pooled_nd: torch.Tensor) -> torch.Tensor:
        """(N, D) mean of the OCT's tokens -> (N, E) unit vectors, float32."""
        return functional.normalize(self.oct(pooled_nd).float(), dim=-1)

    def forward(self, cfp_nd: torch.Tensor, oct_nd: torch.Tensor) -> torch.Tensor:
        """InfoNCE of a batch, scalar float32."""
        scale = self.log_scale.float().exp().clamp(max=_MAX_INVERSE_TEMPERATURE)
        with torch.autocast(cfp_nd.device.type, enabled=False):
            return info_nce(self.embed_cfp(cfp_nd.float()), self.embed_oct(oct_nd.float()), scale)
