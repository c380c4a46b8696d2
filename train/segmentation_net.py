"""A light U-Net decoder on the encoder's feature maps: one logit a pixel and target.

The decoder never sees the photograph itself, only what the encoder made of it: so its
masks say what the encoder knows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from edge_runtime.errors import ConfigError
from train.encoder import CfpEncoder

__all__ = ["SegmentationNet"]

_GROUPS = 4
_LEAST_SHARE = 0.01  # a bias so low that its sigmoid is flat would not learn, either


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """3 x 3 convolution with GroupNorm: batches are too small for batch statistics."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(_GROUPS, outputs), nn.ReLU(inplace=True))


class SegmentationNet(nn.Module):
    """Encoder and decoder; the encoder's maps at strides 16, 8, 4 and 2 meet on the way up.

    The last step from stride 2 to whole pixels is a sub-pixel convolution (Shi et al., CVPR
    2016): four logits a cell and target, laid out as 2 x 2 pixels.
    """

    def __init__(self, encoder: CfpEncoder, shares: Sequence[float], *, width: int = 24) -> None:
        """Build the decoder with random weights on an encoder, which is kept as it is.

        Args:
            encoder: its maps are the decoder's only input.
            shares: of the pixels that each of the C targets covers, about: where the biases
                start. From a probability of one half, most of a short training would go into
                unlearning that half of the eye is a lesion.
            width: channels of the decoder, a multiple of 4.

        Raises:
            ConfigError: no target, or a width that GroupNorm cannot divide.
        """
        super().__init__()
        if not shares or width < _GROUPS or width % _GROUPS:
            raise ConfigError(
                f"{len(shares)} targets must be >= 1 and width {width} a multiple of {_GROUPS}"
            )
        self.encoder = encoder
        channels = _channels(encoder)
        self.narrow = nn.ModuleList([nn.Conv2d(count, width, 1) for count in channels])
        self.merge = nn.ModuleList([_block(2 * width, width) for _ in channels[1:]])
        self.head = nn.Conv2d(width, 4 * len(shares), 3, padding=1)
        bias = torch.logit(torch.tensor(shares, dtype=torch.float32).clamp(_LEAST_SHARE, 0.5))
        with torch.no_grad():
            self.head.bias.copy_(bias.repeat_interleave(4))  # type: ignore[union-attr]
        self.frozen = False

    def forward(self, cfp_nchw: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) normalised float32 -> logits (N, C, S, S)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.encoder.pyramid(cfp_nchw)
        narrow = [layer(one) for layer, one in zip(self.narrow, maps, strict=True)]
        x_nchw = narrow.pop()
        for merge in self.merge:
            skip = narrow.pop()
            x_nchw = functional.interpolate(x_nchw, scale_factor=2.0, mode="bilinear")
            x_nchw = merge(torch.cat([x_nchw, skip], 1))
        return functional.pixel_shuffle(self.head(x_nchw), 2)


def _channels(encoder: CfpEncoder) -> list[int]:
    """Channels of the encoder's maps, measured: they are its own business."""
    side = encoder.config.size_px
    training = encoder.training
    encoder.eval()  # a blank image must not move BatchNorm's statistics
    device = next(encoder.parameters()).device
    with torch.no_grad():
        maps = encoder.pyramid(torch.zeros(1, 3, side, side, device=device))
    encoder.train(training)
    return [one.shape[1] for one in maps]
