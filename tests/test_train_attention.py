"""The choice of the attention kernel: by device, and both compute the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from training_factory import make_batch, make_model

from train.attention import choose_attention, use_fused


@pytest.mark.parametrize(("device", "fused"), [("cpu", False), ("cuda", True), ("cuda:3", True)])
def test_fused_on_cuda_only(device, fused):
    assert use_fused(torch.device(device)) is fused


def test_both_kernels_compute_the_same():
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 9, 8, generator=generator)
    written = (query @ key.transpose(-2, -1) * 8**-0.5).softmax(-1) @ value
    # float32: sums of 9 products in another order
    torch.testing.assert_close(scaled_dot_product_attention(query, key, value), written)


@pytest.mark.parametrize("with_bias", [False, True])
def test_a_whole_model_chooses_by_device_and_predicts_the_same(with_bias):
    model = make_model().eval()
    source = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0))
    bias = torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(1)) if with_bias else None
    decoder, cfp = model.decoders["oct<-cfp"], make_batch()[0]
    results = []
    for device in ("cpu", "cuda"):
        choose_attention(model, torch.device(device))
        chosen = {m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")}
        assert chosen == {device == "cuda"}
        with torch.no_grad():
            results.append((decoder(source, bias), model.cfp_encoder(cfp)))
    for plain, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)  # another order of sums
