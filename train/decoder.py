"""Source-constrained decoder: mask-token queries that attend to one source and nothing else.

There is no self-attention between queries and no visible token of the target among
them, so all a prediction can know comes from the tokens handed over as `source`
(after CrossMAE, arXiv 2401.14391, and CroCo, arXiv 2210.10716).

Legend: N images, Q queries, T source tokens, D width, O outputs a query.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["SourceDecoder"]


class _CrossBlock(nn.Module):
    """Cross-attention and an MLP, both residual with pre-norm."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.fused_attn = False  # `train.attention.choose_attention` sets it by device
        self.query_norm = nn.LayerNorm(width)
        self.to_query = nn.Linear(width, width)
        self.to_key_value = nn.Linear(width, 2 * width)
        self.merge = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def _heads(self, x_ntd: torch.Tensor) -> torch.Tensor:
        num, count, width = x_ntd.shape
        return x_ntd.reshape(num, count, self.num_heads, width // self.num_heads).transpose(1, 2)

    def forward(
        self,
        query_nqd: torch.Tensor,
        source_ntd: torch.Tensor,
        bias_nqt: torch.Tensor | None = None,
    ) -> torch.Tensor:
        key, value = self.to_key_value(source_ntd).chunk(2, -1)
        query = self.to_query(self.query_norm(query_nqd))
        key, value, query = self._heads(key), self._heads(value), self._heads(query)
        bias = None if bias_nqt is None else bias_nqt[:, None]
        if self.fused_attn:
            mask = None if bias is None else bias.to(query.dtype)
            mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:
            logits = query @ key.transpose(-2, -1) * key.shape[-1] ** -0.5
            logits = logits if bias is None else logits + bias
            mixed = logits.softmax(-1).to(value.dtype) @ value
        query_nqd = query_nqd + self.merge(mixed.transpose(1, 2).flatten(2))
        out: torch.Tensor = query_nqd + self.mlp(query_nqd)
        return out


class SourceDecoder(nn.Module):
    """One target's decoder; which source it may read is decided by the route table."""

    def __init__(
        self, *, num_queries: int, num_outputs: int, width: int, depth: int = 1, num_heads: int = 4
    ) -> None:
        """Build `depth` cross-attention blocks with learned queries."""
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, num_queries, width) * 0.02)
        self.blocks = nn.ModuleList([_CrossBlock(width, num_heads) for _ in range(depth)])
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_outputs))

    def forward(
        self, source_ntd: torch.Tensor, bias_nqt: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(N, T, D) source tokens -> (N, Q, O) predictions.

        Args:
            source_ntd: the only tokens that can be attended to.
            bias_nqt: (N, Q or 1, T) float32 added to every head's attention logits: where a
                query should look, and -inf for a token that is not there.
        """
        query_nqd = self.query.expand(len(source_ntd), -1, -1)
        for block in self.blocks:
            query_nqd = block(query_nqd, source_ntd, bias_nqt)
        out: torch.Tensor = self.head(query_nqd)
        return out
