"""The choice of the attention kernel: by device, and both compute the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from train.attention import use_fused


@pytest.mark.parametrize(("device", "fused"), [("cpu", False), ("cuda", True), ("cuda:3", True)])
def test_fused_on_cuda_only(device, fused):
    assert use_fused(torch.device(device)) is fused


def test_both_kernels_compute_the_same():
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 9, 8, generator=generator)
    written = (query @ key.transpose(-2, -1) * 8**-0.5).softmax(-1) @ value
    # float32: sums of 9 products in another order
    torch.testing.assert_close(scaled_dot_product_attention(query, key, value), written)
