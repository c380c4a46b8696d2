"""The two encoders: CFP (exported into every later stage) and OCT (training only).

They never share attention: whatever the OCT encoder sees cannot reach a CFP token.
The CFP stem is convolutional because linear patches did not learn faint local cues
at affordable lengths.

Legend: N images, S side in pixels, T tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from edge_runtime.errors import ConfigError
from train.arrays import patchify
from train.timm_door import import_timm

__all__ = ["CfpEncoder", "EncoderConfig", "OctEncoder"]

_STEM_STRIDE = 16


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of the CFP encoder.

    Attributes:
        size_px: side of the square CFP, a multiple of 16.
        width: token width D, a multiple of `num_heads`.
        depth: transformer blocks behind the convolutional stem.
        num_heads: attention heads.
        stem_width: channels after the first convolution; doubled at each later stage.
    """

    size_px: int = 96
    width: int = 128
    depth: int = 1
    num_heads: int = 4
    stem_width: int = 16

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built."""
        if self.size_px % _STEM_STRIDE or self.size_px < 2 * _STEM_STRIDE:
            raise ConfigError(
                f"size_px is {self.size_px}; it must be a multiple of 16 and at least 32"
            )
        if self.width % self.num_heads:
            raise ConfigError(f"width {self.width} is not a multiple of num_heads {self.num_heads}")
        if self.depth < 0 or self.stem_width < 4:
            raise ConfigError(f"depth {self.depth} or stem_width {self.stem_width} is too small")

    @property
    def num_tokens(self) -> int:
        """T, one token per 16 x 16 pixels."""
        return (self.size_px // _STEM_STRIDE) ** 2


def _conv(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels, 3, 1)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x_nchw: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.relu(x_nchw + self.second(self.first(x_nchw)))
        return out


def _transformer_blocks(width: int, depth: int, num_heads: int) -> nn.Sequential:
    """Pre-norm blocks of timm blocks, with plain attention.

    The fused CPU kernel's bfloat16 backward is several times slower at these token counts.
    """
    block = import_timm().models.vision_transformer.Block
    blocks = [block(width, num_heads, 2.0, qkv_bias=True) for _ in range(depth)]
    for one in blocks:
        one.attn.fused_attn = False
    return nn.Sequential(*blocks)


class CfpEncoder(nn.Module):
    """Convolutional stem to stride 16, then transformer blocks."""

    def __init__(self, config: EncoderConfig) -> None:
        """Build with random weights."""
        super().__init__()
        base = config.stem_width
        self.config = config
        self.stem = nn.Sequential(
            _conv(3, base, 5, 2),
            _conv(base, 2 * base, 3, 2),
            _Residual(2 * base),
            _conv(2 * base, 4 * base, 3, 2),
            _conv(4 * base, config.width, 3, 2),
        )
        self.position = nn.Parameter(torch.randn(1, config.num_tokens, config.width) * 0.02)
        self.blocks = _transformer_blocks(config.width, config.depth, config.num_heads)
        self.norm = nn.LayerNorm(config.width)

    def embed(self, cfp_nchw: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) normalised float32 -> tokens (N, T, D) before any attention."""
        tokens: torch.Tensor = self.stem(cfp_nchw).flatten(2).transpose(1, 2) + self.position
        return tokens

    def attend(self, tokens_ntd: torch.Tensor) -> torch.Tensor:
        """Transformer blocks and the final norm over (N, T, D) tokens."""
        out: torch.Tensor = self.norm(self.blocks(tokens_ntd))
        return out

    def forward(self, cfp_nchw: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) normalised float32 -> tokens (N, T, D)."""
        return self.attend(self.embed(cfp_nchw))

    def pyramid(self, cfp_nchw: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps at strides 2, 4, 8 and 16, for dense tasks.

        The first three come from the stem, (N, C, S/stride, S/stride); the last one is what
        `forward` returns, laid out as (N, D, S/16, S/16).
        """
        maps: list[torch.Tensor] = []
        x_nchw = cfp_nchw
        for stage in self.stem:
            x_nchw = stage(x_nchw)
            if maps and maps[-1].shape[-1] == x_nchw.shape[-1]:
                maps.pop()  # a stage that keeps the stride refines the map before it
            maps.append(x_nchw)
        tokens = maps[-1].flatten(2).transpose(1, 2) + self.position
        tokens = self.norm(self.blocks(tokens))
        return [*maps[:-1], tokens.transpose(1, 2).unflatten(2, maps[-1].shape[-2:])]


class OctEncoder(nn.Module):
    """Linear patches and transformer blocks over the views of one eye, each on its own."""

    def __init__(self, *, side_px: int, patch_px: int, num_views: int, width: int) -> None:
        """Build for square (side_px) target scans cut into patch_px patches."""
        super().__init__()
        self.patch_px = patch_px
        num_patches = (side_px // patch_px) ** 2
        self.embed = nn.Linear(patch_px**2, width)
        self.position = nn.Parameter(torch.randn(1, num_patches, width) * 0.02)
        self.view = nn.Parameter(torch.randn(num_views, 1, width) * 0.02)
        self.blocks = _transformer_blocks(width, 2, 4)
        self.norm = nn.LayerNorm(width)

    def embed_views(self, oct_nvzx: torch.Tensor) -> torch.Tensor:
        """(N, V, Z, X) target scans -> tokens (N * V, T, D) before any attention."""
        patches = patchify(oct_nvzx.flatten(0, 1)[:, None], self.patch_px)
        tokens: torch.Tensor = (
            self.embed(patches) + self.position + self.view.repeat(len(oct_nvzx), 1, 1)
        )
        return tokens

    def forward(self, oct_nvzx: torch.Tensor) -> torch.Tensor:
        """(N, V, Z, X) target scans -> tokens (N, V, T, D); views do not see each other."""
        tokens = self.norm(self.blocks(self.embed_views(oct_nvzx)))
        out: torch.Tensor = tokens.reshape(*oct_nvzx.shape[:2], *tokens.shape[1:])
        return out
