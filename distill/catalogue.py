"""The students that edge-screen recommends, as data; what they cost is computed, not typed.

The tiers are what a camera maker chooses between: `tiny` for the weakest boards, `safe` where
INT8 must not surprise, `accurate` where there is time. Any other timm backbone can be named
instead; `quant_lint` then says what INT8 makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from distill.student import StudentConfig
from edge_runtime.errors import ConfigError

__all__ = ["CATALOGUE", "SIZES_PX", "CatalogueEntry", "student_config"]

SIZES_PX = (224, 384, 512)
_TIERS = ("tiny", "safe", "accurate")


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """One recommended backbone.

    Attributes:
        name: what `--backbone` takes.
        tier: 'tiny', 'safe' or 'accurate'.
        arch: timm architecture.
        channels: widths of a BasicBlock ResNet's stages; empty = the architecture's own.
        stem_width: of its first convolutions; 0 = the architecture's own.
        reason: why it is here, and what to watch.
    """

    name: str
    tier: str
    arch: str
    channels: tuple[int, ...] = ()
    stem_width: int = 0
    reason: str

    def __post_init__(self) -> None:
        """Refuse a tier that nobody knows."""
        if self.tier not in _TIERS:
            raise ConfigError(f"tier is {self.tier!r}; choose from {', '.join(_TIERS)}")

    def config(self, size_px: int) -> StudentConfig:
        """Its shape at one picture size."""
        return StudentConfig(
            size_px=size_px, arch=self.arch, channels=self.channels, stem_width=self.stem_width
        )


CATALOGUE = {
    one.name: one
    for one in (
        CatalogueEntry(
            name="compact",
            tier="tiny",
            arch="resnet10t",
            channels=(32, 64, 128, 192),
            stem_width=16,
            reason="the default: dense 3x3 convolutions, ReLU, one block a stage; the smallest "
            "network whose every convolution INT8 kernels run at full rate",
        ),
        CatalogueEntry(
            name="efficientnet_es",
            tier="tiny",
            arch="efficientnet_es",
            reason="fused dense convolutions first, ReLU, no SE, made for integer boards; its "
            "later blocks are depthwise, so look at the gate",
        ),
        CatalogueEntry(
            name="resnet18",
            tier="safe",
            arch="resnet18",
            channels=(64, 128, 256, 512),
            stem_width=32,
            reason="the family with the smallest published INT8 loss; 3x3 stem, no pooling",
        ),
        CatalogueEntry(
            name="resnet34",
            tier="safe",
            arch="resnet34",
            channels=(64, 128, 256, 512),
            stem_width=32,
            reason="as resnet18 with twice the blocks: the safe choice where memory allows",
        ),
        CatalogueEntry(
            name="efficientnet_em",
            tier="accurate",
            arch="efficientnet_em",
            reason="the deeper efficientnet_es: more accuracy a parameter than a ResNet; its "
            "later blocks are depthwise, so look at the gate",
        ),
        CatalogueEntry(
            name="hgnetv2_b4",
            tier="accurate",
            arch="hgnetv2_b4",
            reason="the smallest HGNetV2 without learnable affine blocks (b0 to b3 have them); "
            "concatenations want one INT8 range, and its pooled stem leaves the integers",
        ),
    )
}


def student_config(name: str, *, size_px: int) -> StudentConfig:
    """Shape of a student by its name in the catalogue, else of a timm architecture as it is.

    Raises:
        ConfigError: the size is impossible. Whether timm knows the name is seen on building.
    """
    if name in CATALOGUE:
        return CATALOGUE[name].config(size_px)
    return StudentConfig(size_px=size_px, arch=name, channels=(), stem_width=0)
