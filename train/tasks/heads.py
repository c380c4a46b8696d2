"""The retrieval heads of an arm that learnt to match: its own embeddings of both images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from train.arrays import normalize_cfp
from train.device import device_of
from train.match import MatchHead, masked_mean
from train.oct_targets import make_oct_targets
from train.pretrain import Pretrained
from train.tasks.retrieval import RetrievalHeads

__all__ = ["heads_of"]

_BATCH = 256


def heads_of(pretrained: Pretrained) -> RetrievalHeads | None:
    """Embeddings by the arm's own projections, or None where no route matched anything.

    Args:
        pretrained: in evaluation mode; pictures are moved to where its model is.
    """
    model = pretrained.model
    names = [route.name for route in model.routes if route.target == "match"]
    if not names:
        return None
    head = model.decoders[names[0]]
    assert isinstance(head, MatchHead)

    def embed_cfp(images_nhwc: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        batch_nchw = normalize_cfp(torch.from_numpy(images_nhwc).to(device_of(model)))
        return head.embed_cfp(model.cfp_encoder(batch_nchw).float().mean(1)).cpu().numpy()

    def embed_oct(scans_nvzx: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        targets = make_oct_targets(scans_nvzx, pretrained.config.oct_target)
        tokens = model.oct_encoder(torch.from_numpy(targets).to(device_of(model)))
        return head.embed_oct(masked_mean(tokens, None)).cpu().numpy()

    return RetrievalHeads(embed_cfp=_batched(embed_cfp), embed_oct=_batched(embed_oct))


def _batched(
    embed: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]],
) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    def run(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        starts = range(0, len(pictures), _BATCH)
        with torch.inference_mode():
            return np.concatenate([embed(pictures[s : s + _BATCH]) for s in starts])

    return run
