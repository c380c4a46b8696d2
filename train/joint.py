"""The joint encoder of the MultiMAE-style baseline: one attention over CFP and OCT tokens.

It breaks the source constraint on purpose: a CFP token has seen the OCT of its eye. The
same CFP encoder, blocks included, later runs on photographs alone.
"""

from __future__ import annotations

import torch
from torch import nn

from train.encoder import CfpEncoder, OctEncoder

__all__ = ["JointEncoder"]


class JointEncoder(nn.Module):
    """The CFP encoder's blocks over the tokens of both modalities (after arXiv 2204.01678)."""

    def __init__(self, cfp: CfpEncoder, oct_encoder: OctEncoder) -> None:
        """Share both encoders' weights; own none.

        Args:
            cfp: lends its stem, blocks and norm.
            oct_encoder: lends its patch embedding; its own blocks are not used.
        """
        super().__init__()
        # In a tuple, so that their weights are not registered a second time.
        self._shared = (cfp, oct_encoder)

    def forward(self, cfp_nchw: torch.Tensor, oct_nvzx: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) and (N, V, Z, X), both already masked -> (N, T_cfp + V * T_oct, D)."""
        cfp, oct_encoder = self._shared
        scans = oct_encoder.embed_views(oct_nvzx)
        scans = scans.reshape(len(oct_nvzx), -1, scans.shape[-1])
        return cfp.attend(torch.cat([cfp.embed(cfp_nchw), scans], 1))
