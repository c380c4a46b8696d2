"""The source decoder: sets of tokens in, one answer a query, queries blind to each other."""

from __future__ import annotations

import pytest
import torch

from train.decoder import SourceDecoder


def _decoder(depth: int = 2) -> SourceDecoder:
    torch.manual_seed(0)
    decoder = SourceDecoder(num_queries=6, num_outputs=5, width=16, depth=depth).eval()
    with torch.no_grad():  # queries far apart, so that a mix-up cannot pass unseen
        decoder.query.normal_(generator=torch.Generator().manual_seed(1))
    return decoder.requires_grad_(False)


@pytest.fixture
def source() -> torch.Tensor:
    return torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(2))


def test_the_order_of_source_tokens_does_not_matter(source):
    decoder = _decoder()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(decoder(source[:, order]), decoder(source), atol=1e-5, rtol=0)


def test_permuting_queries_permutes_predictions(source):
    decoder = _decoder()
    before = decoder(source)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    decoder.query.copy_(decoder.query[:, order].clone())
    torch.testing.assert_close(decoder(source), before[:, order], atol=1e-5, rtol=0)
    assert not torch.allclose(before[:, order], before, atol=1e-2)


@pytest.mark.parametrize("depth", [1, 3])
def test_queries_do_not_see_each_other(source, depth):
    decoder = _decoder(depth)
    before = decoder(source)
    decoder.query[:, 2] = decoder.query[:, 2].flip(-1).clone()
    after = decoder(source)
    others = [0, 1, 3, 4, 5]
    assert torch.equal(after[:, others], before[:, others])
    assert not torch.allclose(after[:, 2], before[:, 2], atol=1e-3)


def test_the_source_decides(source):
    decoder = _decoder()
    changed = source.clone()
    changed[1] = 0
    before, after = decoder(source), decoder(changed)
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.allclose(before[1], after[1], atol=1e-3)


def test_attention_against_torchs_own():
    decoder = _decoder(depth=1)
    block = decoder.blocks[0]
    query, source = torch.randn(2, 6, 16), torch.randn(2, 9, 16)
    key, value = block.to_key_value(source).chunk(2, -1)
    heads = [
        x.reshape(2, -1, 4, 4).transpose(1, 2)
        for x in (block.to_query(block.query_norm(query)), key, value)
    ]
    mixed = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    expected = query + block.merge(mixed)
    expected = expected + block.mlp(expected)
    torch.testing.assert_close(block(query, source), expected, atol=1e-5, rtol=1e-5)
